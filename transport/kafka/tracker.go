package kafkatransport

import (
	"context"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
)

// tracker knows which messages of one partition are in flight: fetched and not
// settled. It yields the watermark, the offset up to which everything is
// settled, and bounds what is in flight.
//
// Messages get consecutive sequence numbers as they are dispatched. The bounds
// count from the oldest unsettled message, so a ring holds them all.
type tracker struct {
	freed chan struct{} // has an element after room was made; for the one that dispatches
	total *budget

	mu       sync.Mutex
	ring     []flight
	head     uint64 // the oldest unsettled message
	tail     uint64 // the next to be dispatched
	inFlight int    // unsettled messages
	bytes    int    // of them
	maxBytes int
	next     int64 // the offset after all that was dispatched, or found to be no message
	resets   int   // how often the offsets began anew
	closed   bool  // nothing more is dispatched, and nothing counts in total
}

type flight struct {
	offset     int64
	size       int
	settled    bool
	dispatched time.Time
}

func newTracker(offset int64, maxCount, maxBytes int, total *budget) *tracker {
	return &tracker{freed: make(chan struct{}, 1), total: total, ring: make([]flight, maxCount), maxBytes: maxBytes, next: offset}
}

func (t *tracker) at(seq uint64) *flight { return &t.ring[seq%uint64(len(t.ring))] }

// dispatch takes in as many of ms, from the front, as there is room for. It
// returns how many those are, the sequence number of the first, and whether it was
// the room of all partitions together that ended first. The offsets must grow.
func (t *tracker) dispatch(ms []dedup.Message) (n int, first uint64, starved bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	first = t.tail
	for !t.closed && n < len(ms) && t.tail-t.head < uint64(len(t.ring)) {
		size := msg.Size(&ms[n])
		if t.bytes > 0 && t.bytes+size > t.maxBytes {
			break
		}
		if !t.total.take(size, t.inFlight == 0) {
			return n, first, true
		}
		offset := ms[n].Position.Offset
		*t.at(t.tail) = flight{offset: offset, size: size, dispatched: now}
		t.inFlight++
		t.bytes += size
		t.tail++
		t.next = offset + 1
		n++
	}
	return n, first, false
}

// dispatchSome waits for room for at least one of ms. It returns 0 if ctx ended first.
func (t *tracker) dispatchSome(ctx context.Context, ms []dedup.Message) (n int, first uint64) {
	for ctx.Err() == nil {
		n, first, starved := t.dispatch(ms)
		if n > 0 {
			return n, first
		}
		if !starved {
			select {
			case <-ctx.Done():
			case <-t.freed:
			}
			continue
		}
		t.total.wait(t.freed)
		if n, first, starved = t.dispatch(ms); starved && n == 0 {
			select {
			case <-ctx.Done():
			case <-t.freed:
			}
		}
		t.total.done(t.freed, n > 0 || ctx.Err() != nil)
		if n > 0 {
			return n, first
		}
	}
	return 0, 0
}

// advance says that there is no message between the last dispatched one and next.
func (t *tracker) advance(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, next)
}

// reset begins anew at next, which may be lower, if nothing is in flight.
func (t *tracker) reset(next int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head < t.tail {
		return false
	}
	t.next = next
	t.resets++
	return true
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
	t.inFlight--
	t.bytes -= f.size
	if !t.closed {
		t.total.free(1, f.size)
	}
	for t.head < t.tail && t.at(t.head).settled {
		t.head++
	}
	notify(t.freed)
}

// close ends dispatching, and leaves the room of what is in flight to the other
// partitions: what halted partitions keep would be missing for as long as this
// assignment lasts.
func (t *tracker) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed {
		t.closed = true
		t.total.free(t.inFlight, t.bytes)
	}
}

// watermark returns the offset up to which, itself excluded, all is settled. It
// never falls, but for a reset; resets counts these.
func (t *tracker) watermark() (offset int64, resets int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head < t.tail {
		return t.at(t.head).offset, t.resets
	}
	return t.next, t.resets
}

// load returns what is in flight, and when the oldest of it was dispatched.
func (t *tracker) load() (messages, bytes int, oldest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.head < t.tail {
		oldest = t.at(t.head).dispatched
	}
	return t.inFlight, t.bytes, oldest
}

// notify puts an element into c, unless it has one.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
