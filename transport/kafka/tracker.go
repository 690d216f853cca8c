package kafkatransport

import (
	"sync"

	"github.com/oncequeue/oncequeue/dedup"
)

// tracker knows which messages of one partition are in flight: fetched and not
// settled. It yields the watermark, the offset up to which everything is
// settled, and bounds what is in flight.
//
// Messages get consecutive sequence numbers as they are dispatched. The bounds
// count from the oldest unsettled message, so a ring holds them all.
type tracker struct {
	freed chan struct{} // has an element after room was made; for the one that dispatches

	mu       sync.Mutex
	ring     []flight
	head     uint64 // the oldest unsettled message
	tail     uint64 // the next to be dispatched
	bytes    int    // of unsettled messages
	maxBytes int
	next     int64 // the offset after all that was dispatched, or found to be no message
}

type flight struct {
	offset  int64
	size    int
	settled bool
}

func newTracker(offset int64, maxCount, maxBytes int) *tracker {
	return &tracker{freed: make(chan struct{}, 1), ring: make([]flight, maxCount), maxBytes: maxBytes, next: offset}
}

func (t *tracker) at(seq uint64) *flight { return &t.ring[seq%uint64(len(t.ring))] }

// dispatch takes in as many of ms, from the front, as there is room for. It
// returns how many those are and the sequence number of the first. The offsets
// must grow.
func (t *tracker) dispatch(ms []dedup.Message) (n int, first uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	first = t.tail
	for n < len(ms) && t.tail-t.head < uint64(len(t.ring)) {
		size := sizeOf(&ms[n])
		if t.bytes > 0 && t.bytes+size > t.maxBytes {
			break
		}
		offset := ms[n].Position.Offset
		*t.at(t.tail) = flight{offset: offset, size: size}
		t.bytes += size
		t.tail++
		t.next = offset + 1
		n++
	}
	return n, first
}

// advance says that there is no message between the last dispatched one and next.
func (t *tracker) advance(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, next)
}

// settle marks a dispatched message as settled.
func (t *tracker) settle(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.at(seq)
	if seq < t.head || f.settled {
		return
	}
	f.settled = true
	t.bytes -= f.size
	for t.head < t.tail && t.at(t.head).settled {
		t.head++
	}
	select {
	case t.freed <- struct{}{}:
	default:
	}
}

// watermark returns the offset up to which, itself excluded, all is settled. It
// never falls.
func (t *tracker) watermark() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head < t.tail {
		return t.at(t.head).offset
	}
	return t.next
}

func sizeOf(m *dedup.Message) int {
	n := 1 + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}
