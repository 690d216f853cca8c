package dedup

import (
	"fmt"
	"iter"
	"strings"
	"time"
)

// Header is one header of a message. Value may be nil.
type Header struct {
	Key   string
	Value []byte
}

// Headers are the headers of a message in the broker's order. A name may
// repeat. Names compare case-insensitively, as they do in HTTP, because
// producers in different languages write the same header differently.
type Headers []Header

// Get returns the value of the first header with the name, and whether there
// is one.
func (h Headers) Get(name string) ([]byte, bool) {
	for v := range h.Values(name) {
		return v, true
	}
	return nil, false
}

// Values yields the values of all headers with the name, in order.
func (h Headers) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range h {
			if strings.EqualFold(h[i].Key, name) && !yield(h[i].Value) {
				return
			}
		}
	}
}

// Set gives the header the value: it replaces the first one of that name,
// removes the others, and appends one if there was none. It writes a new
// slice, so that headers shared with another message stay as they are.
func (h *Headers) Set(name string, value []byte) {
	out := make(Headers, 0, len(*h)+1)
	set := false
	for _, x := range *h {
		if !strings.EqualFold(x.Key, name) {
			out = append(out, x)
		} else if !set {
			out, set = append(out, Header{x.Key, value}), true
		}
	}
	if !set {
		out = append(out, Header{name, value})
	}
	*h = out
}

// SetKey is for producers: it writes the key to the header Idempotency-Key,
// where HeaderKey finds it. No header can carry a derived key: of such a one it
// writes what String returns, which is another key, and equal for equal ones.
func (h *Headers) SetKey(key Key) { h.Set(HeaderIdempotencyKey, quoted(key)) }

// Position is where the broker holds a message. It is the same for every
// redelivery of that message and differs for a copy published again.
//
// Kafka: topic, partition, offset. JetStream: stream, 0, stream sequence.
type Position struct {
	Source    string
	Partition int32
	Offset    int64
}

// String returns "source/partition@offset".
func (p Position) String() string { return fmt.Sprintf("%s/%d@%d", p.Source, p.Partition, p.Offset) }

// Message is one delivery. It carries no acknowledgement: the transport acts
// on the Result.
//
// The byte slices belong to the transport and are valid until the call that
// received the message (Do, DoBatch, Settle) returns; a handler that keeps
// them longer copies them.
type Message struct {
	Topic     string // Kafka topic or NATS subject
	Key       []byte // producer's partitioning key; nil if none
	Value     []byte
	Headers   Headers
	Position  Position
	Published time.Time // the timestamp that the broker has, the same in every delivery; zero if unknown
	Delivery  int       // 1 for the first delivery; 0 if unknown
	Claim     Claim     // set before the handler runs
	Raw       any       // pointer to the client library's own message

	// Since is for transports that know that the message's source was consumed
	// with another store: what that one recorded before Since is unknown here, so
	// a message published earlier is Stale. Zero: the store's own word counts.
	Since time.Time
}

// Claim tells a handler under which claim it runs.
type Claim struct {
	ID  ID
	Key Key
	// Token is greater than every earlier token of this key. Pass it to systems
	// that can refuse a lower one: that fences a run that was paused past its lease.
	Token Token
	// Attempt is 1 + the runs before this one that failed or died.
	Attempt int
	// Ambiguous: an earlier run may have had its effect without recording it.
	Ambiguous bool
	// Stale: the store may have forgotten this key, because the message is older
	// than what the store vouches for.
	Stale bool
}
