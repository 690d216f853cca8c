package dedup

import (
	"iter"
	"strings"
	"time"
)

// Header is one header of a message.
type Header struct {
	Key   string // the name
	Value []byte // may be nil
}

// Headers are the headers of a message, in the broker's order. The same name may occur
// several times. Names are compared without regard to case, as in HTTP, because producers
// in different languages write the same header differently.
type Headers []Header

// Get returns the value of the first header with the name, and whether there is one. The
// value is not copied.
func (h Headers) Get(name string) ([]byte, bool) {
	for v := range h.Values(name) {
		return v, true
	}
	return nil, false
}

// Values yields the values of all headers with the name, in order. They are not copied.
func (h Headers) Values(name string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for i := range h {
			if strings.EqualFold(h[i].Key, name) && !yield(h[i].Value) {
				return
			}
		}
	}
}

// Set gives the header with the name this value. It replaces the first header of that name
// and removes the others. If there is none, it appends one. Set makes a new slice, so
// headers shared with another message stay as they are.
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

// SetKey sets the header Idempotency-Key, where [HeaderKey] finds it. It is for producers.
// No header can carry a derived key. For such a key, SetKey writes the text that
// [Key.String] returns. Read back, that is another key, and the same one for equal keys.
func (h *Headers) SetKey(key Key) { h.Set(HeaderIdempotencyKey, quoted(key)) }

// Message is one delivery. It has no method to acknowledge it: the transport does that, as
// the [Result] says.
//
// The byte slices belong to the transport. They are valid until the call that received the
// message (Do, DoBatch, DoEach, DoRound, Settle) returns. A handler that keeps them longer must copy them.
type Message struct {
	Topic     string    // Kafka topic or NATS subject
	Key       []byte    // the producer's partitioning key, which is not the idempotency key; nil if there is none
	Value     []byte    // the payload
	Headers   Headers   // in the broker's order
	Position  Position  // where the broker holds the message
	Published time.Time // the broker's timestamp of the message, the same in every delivery; zero if unknown
	Delivery  int       // 1 for the first delivery, and so on; 0 if unknown
	Claim     Claim     // set by the Deduplicator before the handler runs
	Raw       any       // pointer to the client library's own message; nil if there is none

	// Since is for authors of transports. A transport sets it if the message's source was
	// consumed with another store until then: this store does not know the keys that the
	// other one recorded, so a message that was published before Since is stale. With the
	// zero Since, only the store's own Vouch counts.
	Since time.Time
}

// Claim tells a handler under which claim it runs. A message that runs without a key, as
// Options.OnUnkeyed can ask for, has the zero Claim.
type Claim struct {
	ID  ID  // hash of scope and key
	Key Key // as the KeyFunc derived it
	// Token is greater than every earlier token of this key. Pass it to a system that
	// refuses a lower token than one that it has seen: then a run that was paused past its
	// lease has no late effect.
	Token Token
	// Attempt is the number of this run: 1 plus the earlier runs that failed or died.
	Attempt int
	// Ambiguous means that an earlier run may have had its effect without recording it.
	Ambiguous bool
	// Stale means that the store may have forgotten this key: the message is older than
	// the store's memory reaches.
	Stale bool
}
