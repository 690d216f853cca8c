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
	running    map[uint64]*delivery
	half       func(ID) uint64
	onConflict Policy
}

func (f *flights) init(onConflict Policy) {
	f.onConflict = onConflict
	f.running = make(map[uint64]*delivery)
	f.half = func(id ID) uint64 { return binary.LittleEndian.Uint64(id[:]) }
}

// take puts x in flight if its key is free. Else it returns the delivery that x has
// to wait for, unless it decided x. The caller holds mu.
func (f *flights) take(x *delivery) (other *delivery) {
	half := f.half(x.id)
	other = f.running[half]
	switch {
	case other == x: // since startBy
	case other == nil:
		f.running[half], x.flying = x, true
	case x.call.inside(other.call):
		x.unlink()
		x.giveUp(ErrOwnKey)
	case f.conflicts(x, other):
		x.unlink()
		x.firstSeen = other.firstSeen
		x.conflict(f.onConflict, other.res.First)
	default:
		other.watched.Store(true)
		if !f.conflicts(x, other) { // it may have been granted just now
			return other
		}
		return f.take(x)
	}
	return nil
}

// conflicts reports whether other holds the key of x in the store, with another
// payload. Those of one call wait, and then ask the store; so do all where a conflict
// is skipped, as that is known only when other is settled.
func (f *flights) conflicts(x, other *delivery) bool {
	return other.id == x.id && other.call != x.call && other.granted.Load() && f.onConflict != PolicySkip &&
		x.fingerprint != other.fingerprint && x.fingerprint != (Fingerprint{}) && other.fingerprint != (Fingerprint{})
}

// granted notes which of xs have the claim of their key, and has the deliveries look
// again that wait for it.
func (f *flights) granted(xs []*delivery) {
	for _, x := range xs {
		if !x.claimed {
			continue
		}
		if x.granted.Store(true); x.watched.Load() {
			f.mu.Lock()
			x.wake()
			f.mu.Unlock()
		}
	}
}

// again has x try once more. Until its claim is granted anew, other deliveries must not
// read the store's answer to the old claim, which the new answer overwrites.
func (f *flights) again(x *delivery) {
	f.mu.Lock()
	x.granted.Store(false)
	f.mu.Unlock()
	x.again()
}

// wake has the deliveries look again that wait for x. The caller holds the mutex of flights.
func (x *delivery) wake() {
	if x.ended != nil {
		close(x.ended)
		x.ended = nil
	}
}

// start puts those of xs in flight whose keys are free, and returns them, in the
// memory of xs, and those that have to wait. A delivery in neither list needs no more:
// it is decided, or was answered by the delivery that it awaited, or has found a
// leader: a delivery of its own call, whose fate it shares. A delivery without a key
// is free, and so is one that conflicts and is to be parked. A caller that does not wait
// any longer calls leave.
func (f *flights) start(xs []*delivery) (free, wait []*delivery) {
	free = xs[:0]
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if x.answer != nil {
			continue
		}
		if x.id == (ID{}) {
			free = append(free, x)
			continue
		}
		switch other := f.take(x); {
		case other == nil:
			if x.flying || x.park != nil {
				free = append(free, x)
			}
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
		x.unlink()
	}
	return unanswered
}

// unlink ends the wait of x. The caller holds the mutex of flights.
func (x *delivery) unlink() {
	if other := x.awaits; other != nil {
		last := len(other.awaited) - 1
		moved := other.awaited[last]
		other.awaited[x.place], moved.place = moved, x.place
		other.awaited, x.awaits = other.awaited[:last], nil
	}
}

// startOne puts x in flight, unless it was answered or decided, or returns a channel
// that closes when x shall look again.
func (f *flights) startOne(x *delivery) (again <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.answer != nil {
		return nil
	}
	other := f.take(x)
	if other == nil {
		return nil
	}
	if other.ended == nil {
		other.ended = make(chan struct{})
	}
	return other.ended
}

// end takes xs out of flight, all at one time: a call that waits for one of a batch
// finds the others free too.
func (f *flights) end(xs ...*delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if x.flying {
			x.tell()
			f.land(x)
		}
	}
}

// abandon takes x out of flight, which is not decided: its claim is lost.
func (f *flights) abandon(x *delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.flying {
		for _, w := range x.awaited {
			w.awaits = nil
		}
		f.land(x)
	}
}

func (f *flights) land(x *delivery) {
	x.flying, x.awaited = false, nil
	delete(f.running, f.half(x.id))
	x.wake()
}

// tell answers the deliveries that await x and would hear the same from the store. An
// answer of the store from before they came may be out of date: the key may have been
// forgotten since.
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

// startBy puts x in flight, unless it was answered or decided. It waits for its turn
// until the deadline: it returns ErrBusy then, ErrClosed once closing is closed, or the
// cause of ctx's end.
func (f *flights) startBy(ctx context.Context, closing <-chan struct{}, x *delivery, deadline time.Time) error {
	var timeout <-chan time.Time
	for {
		again := f.startOne(x)
		if again == nil {
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-again:
		case <-timeout:
			return ErrBusy
		case <-closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
