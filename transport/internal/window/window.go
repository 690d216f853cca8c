// Package window knows which messages of a partition are in flight: handed to the
// workers and not settled. From that follow the watermark and the room for more.
package window

import (
	"context"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// Window is the messages of one partition that are in flight.
//
// It keeps the unsettled messages alone, in the order of their offsets. Every other
// offset below the end of the dispatched ones is settled, or holds no message: the
// gaps between the unsettled messages are the settled ranges, and cost nothing. So
// one message may stay unsettled while a million behind it are settled.
//
//	offset   100   101 ... 499   500   501 ... 899   900
//	         |     settled       |     settled       end of the dispatched
//	         unsettled           unsettled
//	         watermark = 100
type Window struct {
	bounds Bounds
	total  *Budget
	freed  chan struct{} // has an element after room was made; for the one that dispatches

	mu      sync.Mutex
	oldest  *Flight // of the unsettled messages
	newest  *Flight
	count   int
	bytes   int
	next    int64 // the offset after all that was dispatched, or found to be no message
	resets  int   // how often the offsets began anew
	closed  bool  // nothing more is dispatched, and nothing counts in total
	blocked Reason
}

// Bounds is how much of one partition may be in flight.
type Bounds struct {
	Messages int   // unsettled ones
	Bytes    int   // of the unsettled ones; a single larger message passes
	Ahead    int64 // offsets from the oldest unsettled message on, settled or not
}

// Flight is one message in flight. The package lanes owns Key.
type Flight struct {
	Message *dedup.Message
	Key     uint64 // a hash of the message's key; 0: it has none

	window     *Window
	offset     int64
	size       int
	dispatched time.Time
	settled    bool
	older      *Flight
	newer      *Flight
}

// Offset returns the offset of the message.
func (f *Flight) Offset() int64 { return f.offset }

// Window returns where f is in flight.
func (f *Flight) Window() *Window { return f.window }

// Reason says why nothing more is dispatched.
type Reason uint8

const (
	// Open: there is room, or nobody has asked.
	Open Reason = iota
	// Full: the bounds of the partition in messages or bytes are reached.
	Full
	// FarAhead: Bounds.Ahead is reached.
	FarAhead
	// Starved: the bounds of all partitions together are reached.
	Starved
	// Closed: nothing more will be dispatched.
	Closed
)

// New makes the Window of a partition that begins at offset.
func New(offset int64, b Bounds, total *Budget) *Window {
	return &Window{bounds: b, total: total, next: offset, freed: make(chan struct{}, 1)}
}

// slab is how many Flights are allocated together: few, because an unsettled one
// keeps the memory of all.
const slab = 16

// TryDispatch takes in as many of ms, from the front, as there is room for, and
// says why not more. The offsets must grow.
func (w *Window) TryDispatch(ms []dedup.Message) ([]*Flight, Reason) {
	now := time.Now()
	var flights []*Flight
	var free []Flight
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range ms {
		m := &ms[i]
		size, offset := msg.Size(m), m.Position.Offset
		if w.blocked = w.room(size, offset); w.blocked != Open {
			return flights, w.blocked
		}
		if len(free) == 0 {
			free = make([]Flight, min(slab, len(ms)-i))
		}
		if flights == nil {
			flights = make([]*Flight, 0, len(ms))
		}
		f := &free[0]
		free = free[1:]
		*f = Flight{Message: m, window: w, offset: offset, size: size, dispatched: now, older: w.newest}
		if w.newest == nil {
			w.oldest = f
		} else {
			w.newest.newer = f
		}
		w.newest = f
		w.count++
		w.bytes += size
		w.next = offset + 1
		flights = append(flights, f)
	}
	return flights, Open
}

// room takes room for a message. The caller holds mu.
func (w *Window) room(size int, offset int64) Reason {
	switch {
	case w.closed:
		return Closed
	case w.count >= w.bounds.Messages, w.count > 0 && w.bytes+size > w.bounds.Bytes:
		return Full
	case w.count > 0 && offset-w.oldest.offset >= w.bounds.Ahead:
		return FarAhead
	case !w.total.take(size, w.count == 0):
		return Starved
	}
	return Open
}

// Dispatch waits for room for at least one of ms, and takes in as many as there is
// room for. It returns none if ctx ended first. One goroutine may call it at a time.
func (w *Window) Dispatch(ctx context.Context, ms []dedup.Message) []*Flight {
	for ctx.Err() == nil {
		flights, why := w.TryDispatch(ms)
		if len(flights) > 0 {
			return flights
		}
		if why != Starved {
			select {
			case <-ctx.Done():
			case <-w.freed:
			}
			continue
		}
		w.total.wait(w.freed)
		if flights, why = w.TryDispatch(ms); why == Starved && len(flights) == 0 {
			select {
			case <-ctx.Done():
			case <-w.freed:
			}
		}
		w.total.done(w.freed, len(flights) > 0 || ctx.Err() != nil)
		if len(flights) > 0 {
			return flights
		}
	}
	return nil
}

// Freed has an element after room was made, for a caller that waits by itself.
func (w *Window) Freed() <-chan struct{} { return w.freed }

// Settle marks the message as settled, and lets go of it.
func (f *Flight) Settle() {
	w := f.window
	w.mu.Lock()
	defer w.mu.Unlock()
	if f.settled {
		return
	}
	f.settled = true
	if f.older == nil {
		w.oldest = f.newer
	} else {
		f.older.newer = f.newer
	}
	if f.newer == nil {
		w.newest = f.older
	} else {
		f.newer.older = f.older
	}
	f.older, f.newer, f.Message = nil, nil, nil // its neighbours in the slab may live long
	w.count--
	w.bytes -= f.size
	if !w.closed {
		w.total.free(1, f.size)
	}
	wait.Notify(w.freed)
}

// Advance says that there is no message between the last dispatched one and next.
func (w *Window) Advance(next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = max(w.next, next)
}

// Reset begins anew at next, which may be lower, if nothing is in flight.
func (w *Window) Reset(next int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.count > 0 {
		return false
	}
	w.next = next
	w.resets++
	return true
}

// Close ends dispatching, and leaves the room of its messages in flight to the other
// partitions. A halted partition would keep it for as long as the assignment lasts.
func (w *Window) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.closed = true
		w.total.free(w.count, w.bytes)
	}
}

// Watermark returns the offset up to which, itself excluded, all is settled. It
// never falls, but for a reset; resets counts these.
func (w *Window) Watermark() (offset int64, resets int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.oldest != nil {
		return w.oldest.offset, w.resets
	}
	return w.next, w.resets
}

// Load is the messages that a Window has in flight.
type Load struct {
	Messages int
	Bytes    int
	Oldest   time.Time // when the oldest unsettled message was dispatched; zero: there is none
	Ahead    int64     // offsets from that message to the end of the dispatched ones
	Blocked  Reason    // why the last dispatch stopped
}

// Load returns the figures of now.
func (w *Window) Load() Load {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := Load{Messages: w.count, Bytes: w.bytes, Blocked: w.blocked}
	if w.oldest != nil {
		l.Oldest, l.Ahead = w.oldest.dispatched, w.next-w.oldest.offset
	}
	return l
}

// FarBehind says whether more offsets were dispatched behind the oldest unsettled
// message than may be in flight. A message that waits then may wait long, and should keep no
// memory but its own.
func (w *Window) FarBehind() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.oldest != nil && w.next-w.oldest.offset > int64(w.bounds.Messages)
}
