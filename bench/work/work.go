// Package work makes the messages that every suite processes: a UUID of 36
// characters as the key in a header, 100 bytes of payload, and of five messages
// one that repeats one of the last 100,000 keys.
package work

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

const (
	// Scope of the Deduplicators.
	Scope = "bench"
	// Source is the topic of the messages.
	Source = "orders"
	// BatchSize is how many messages a batch has, in every contender that batches.
	BatchSize = 256
	// TTL is how long results are remembered.
	TTL = 24 * time.Hour
	// Lease is that of claims which no Deduplicator makes.
	Lease = 30 * time.Second

	payloadLen = 100
	window     = 100_000 // of keys that may come again
	partitions = 6
)

// UUID is a key in binary, for contenders that can take it so.
type UUID [16]byte

// String returns the 36 characters.
func (u UUID) String() string { return string(u.append(nil)) }

func (u UUID) append(dst []byte) []byte {
	for i, end := range []int{4, 6, 8, 10, 16} {
		if i > 0 {
			dst = append(dst, '-')
		}
		begin := []int{0, 4, 6, 8, 10}[i]
		dst = hex.AppendEncode(dst, u[begin:end])
	}
	return dst
}

// Stream is a stream of messages, the same for the same seed. It is not safe for
// concurrent use.
type Stream struct {
	rng    *rand.Rand
	recent []UUID
	oldest int
	offset int64
}

// New returns the stream of a seed.
func New(seed uint64) *Stream {
	return &Stream{rng: rand.New(rand.NewPCG(seed, 0)), recent: make([]UUID, 0, window)}
}

// Batch is some messages of a stream, in order.
type Batch struct {
	Messages []*dedup.Message
	Keys     []UUID // of Messages
	Fresh    int    // messages whose key was not seen in the stream before
	handled  atomic.Int64
}

// Next returns the next n messages.
func (s *Stream) Next(n int) *Batch { return s.next(n, 1, 5) }

// Fresh returns n messages with keys that the stream had not yet: to fill a store with.
func (s *Stream) Fresh(n int) *Batch { return s.next(n, 0, 1) }

// Repeats returns n messages with keys from among the last ones.
func (s *Stream) Repeats(n int) *Batch { return s.next(n, 1, 1) }

// next repeats a key in some of so many messages.
func (s *Stream) next(n, repeat, of int) *Batch {
	b := &Batch{Messages: make([]*dedup.Message, n), Keys: make([]UUID, n)}
	now := time.Now()
	slab := make([]dedup.Message, n)
	headers := make([]dedup.Header, n)
	for i := range n {
		key, fresh := s.key(repeat, of)
		if fresh {
			b.Fresh++
		}
		b.Keys[i] = key
		text := make([]byte, 0, 36+payloadLen)
		text = key.append(text)
		// A repeated key has the same payload.
		value := text[36 : 36+payloadLen : 36+payloadLen]
		for j := range value {
			value[j] = key[j%len(key)] ^ byte(j)
		}
		headers[i] = dedup.Header{Key: dedup.HeaderIdempotencyKey, Value: text}
		slab[i] = dedup.Message{
			Topic:     Source,
			Value:     value,
			Headers:   headers[i : i+1 : i+1],
			Position:  dedup.Position{Source: Source, Partition: int32(s.offset % partitions), Offset: s.offset / partitions},
			Published: now,
			Delivery:  1,
		}
		b.Messages[i] = &slab[i]
		s.offset++
	}
	return b
}

func (s *Stream) key(repeat, of int) (key UUID, fresh bool) {
	if len(s.recent) > 0 && s.rng.IntN(of) < repeat {
		return s.recent[s.rng.IntN(len(s.recent))], false
	}
	for i := 0; i < len(key); i += 8 {
		r := s.rng.Uint64()
		for j := range 8 {
			key[i+j] = byte(r >> (8 * j))
		}
	}
	key[6], key[8] = key[6]&0x0f|0x40, key[8]&0x3f|0x80 // version 4
	if len(s.recent) < window {
		s.recent = append(s.recent, key)
	} else {
		s.recent[s.oldest] = key
		s.oldest = (s.oldest + 1) % window
	}
	return key, true
}

// Recent returns the keys that may come again.
func (s *Stream) Recent() []UUID { return s.recent }

// Handled counts n messages that were processed, and were no duplicates.
func (b *Batch) Handled(n int) { b.handled.Add(int64(n)) }

// Check returns an error unless exactly the fresh messages were handled: a
// contender that let a duplicate through, or lost a message, did not do the work.
func (b *Batch) Check() error {
	if got := int(b.handled.Load()); got != b.Fresh {
		return fmt.Errorf("%d of %d messages were handled, want %d", got, len(b.Messages), b.Fresh)
	}
	return nil
}
