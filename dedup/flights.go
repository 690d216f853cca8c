package dedup

import (
	"bytes"
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// flights holds the keys that are being worked on in this process, so that a
// second delivery of one waits here, without a claim or a handler slot.
type flights struct {
	mu sync.Mutex
	// By half of the ID: a map of integers costs half of what one of IDs does. Keys
	// that share a half would wait for each other, and that is all.
	running map[uint64]*delivery
}

// start puts those of xs in flight whose keys are free, and returns them, in the
// memory of xs, and those that have to wait. What is in neither has been answered by
// whom it awaited, or has found a leader: a delivery of its own call, whose fate it
// shares. One without a key is free. Whoever does not wait any longer calls leave.
func (f *flights) start(xs []*delivery) (free, wait []*delivery) {
	free = xs[:0]
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if x.id == (ID{}) {
			free = append(free, x)
			continue
		}
		switch other := f.running[x.id.half()]; {
		case x.answer != nil:
		case other == nil:
			f.running[x.id.half()], x.flying = x, true
			free = append(free, x)
		case other == x: // since startBy
			free = append(free, x)
		case other.id == x.id && other.call == x.call && other.fingerprint == x.fingerprint:
			x.leader = other
		default:
			if x.awaits == nil {
				x.awaits, x.place, other.awaited = other, len(other.awaited), append(other.awaited, x)
			}
			wait = append(wait, x)
		}
	}
	return free, wait
}

// leave ends the wait of xs, and returns those that nobody has answered.
func (f *flights) leave(xs []*delivery) (unanswered []*delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if x.answer != nil {
			continue
		}
		unanswered = append(unanswered, x)
		if other := x.awaits; other != nil {
			last := len(other.awaited) - 1
			moved := other.awaited[last]
			other.awaited[x.place], moved.place = moved, x.place
			other.awaited, x.awaits = other.awaited[:last], nil
		}
	}
	return unanswered
}

// startOne puts x in flight, unless it was answered, or returns a channel that closes
// when the delivery of its key that is has ended.
func (f *flights) startOne(x *delivery) (ended <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.answer != nil {
		return nil
	}
	other := f.running[x.id.half()]
	if other == nil {
		f.running[x.id.half()], x.flying = x, true
		return nil
	}
	if other.ended == nil {
		other.ended = make(chan struct{})
	}
	return other.ended
}

// end takes xs out of flight, all at one time: who waits for one of a batch finds
// the others free too.
func (f *flights) end(xs ...*delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if !x.flying {
			continue
		}
		x.flying = false
		delete(f.running, x.id.half())
		x.tell()
		if x.ended != nil {
			close(x.ended)
		}
	}
}

// tell answers those who await x and would hear the same from the store. What it said
// before they came may be out of date: the key may have been forgotten since.
func (x *delivery) tell() {
	var a *answer
	for _, w := range x.awaited {
		w.awaits = nil
		if w.id != x.id || w.fingerprint != x.fingerprint || x.known.Before(w.call.received) ||
			!x.res.settled || x.res.Outcome != Processed && x.res.Outcome != Duplicate {
			continue
		}
		if a == nil {
			said := x.say()
			said.result.Value = bytes.Clone(said.result.Value) // that one is its caller's
			a = &said
		}
		w.answer = a
	}
}

// startBy puts x in flight, unless it was answered. It waits for its turn until the
// deadline: it returns ErrBusy then, ErrClosed once closing is closed, or the cause of
// ctx's end.
func (f *flights) startBy(ctx context.Context, closing <-chan struct{}, x *delivery, deadline time.Time) error {
	var timeout <-chan time.Time
	for {
		ended := f.startOne(x)
		if ended == nil {
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-ended:
		case <-timeout:
			return ErrBusy
		case <-closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (id ID) half() uint64 { return binary.LittleEndian.Uint64(id[:]) }
