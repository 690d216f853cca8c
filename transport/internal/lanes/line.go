package lanes

import (
	"context"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// Line is the messages of one partition on their way to the Deduplicator.
type Line struct {
	pool      *Pool
	ctx       context.Context // of the handlers
	partition Partition
	stopped   atomic.Bool
	idle      chan struct{} // closed when the Line has stopped and nothing of it runs

	// The Pool's mu guards the rest.
	queue  []*window.Flight  // not looked at yet, in the order of their offsets
	ready  []*group          // in the order in which they became ready
	held   schedule          // tried, and not settled
	groups map[uint64]*group // by key: those of which a call runs or an item waits
	alarm  *time.Timer       // for the first held group
	calls  int               // under way
	extra  int               // calls that may be under way because others are overdue
	turns  uint64            // how often take was called
	queued bool              // it is in Pool.queue
}

// Partition is what a Line tells about its messages. The methods are called without
// a lock, from several goroutines at once.
type Partition interface {
	// Settled says that f needs nothing more.
	Settled(f *window.Flight)
	// Halt says that the Deduplicator stopped at the message. The Line is to be
	// stopped; until then it goes on.
	Halt(offset int64, r dedup.Result)
}

var seed = maphash.MakeSeed()

// keyOf returns a hash of the key. Two keys of one hash keep an order that they do not
// need, and nothing else.
func keyOf(key []byte) uint64 {
	if key == nil {
		return 0
	}
	return maphash.Bytes(seed, key) | 1
}

// Put takes over messages, in the order of their offsets. It does not block, and
// drops them once the Line has stopped.
func (l *Line) Put(flights []*window.Flight) {
	for _, f := range flights {
		f.Key = keyOf(f.Message.Key)
	}
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.stopped.Load() {
		return
	}
	l.queue = append(l.queue, flights...)
	l.pool.offer(l)
}

// Stop ends the Line: nothing new begins, and waiting messages are dropped. Running
// calls go on; see Idle.
func (l *Line) Stop() {
	l.pool.mu.Lock()
	defer l.pool.mu.Unlock()
	if l.stopped.Swap(true) {
		return
	}
	l.queue, l.ready, l.held, l.groups = nil, nil, nil, nil
	if l.alarm != nil {
		l.alarm.Stop()
	}
	l.rest()
}

// Idle is closed when the Line has stopped and nothing of it runs.
func (l *Line) Idle() <-chan struct{} { return l.idle }

// rest closes idle if that is due. The caller holds mu.
func (l *Line) rest() {
	if l.stopped.Load() && l.calls == 0 {
		close(l.idle)
	}
}

// runnable says whether a call might find something to do. The caller holds mu.
func (l *Line) runnable() bool {
	return !l.stopped.Load() && l.calls < l.pool.kind.perLine+l.extra &&
		(len(l.ready) > 0 || len(l.queue) > 0 || len(l.held) > 0 && !l.held[0].due.After(time.Now()))
}

// take appends messages that may be tried now, at most limit. Those of one key are in
// order. The caller holds mu.
func (l *Line) take(to []*window.Flight, limit int) []*window.Flight {
	if l.stopped.Load() {
		return to
	}
	l.turns++
	if len(l.held) > 0 {
		now := time.Now()
		for len(to) < limit {
			g := l.held.next(now)
			if g == nil {
				break
			}
			to = g.take(to, 1, l.turns)
		}
	}
	most := 1
	for len(to) < limit && len(l.ready) > 0 {
		if l.pool.kind.several {
			most = limit - len(to)
		}
		g := l.ready[0]
		l.ready[0] = nil
		l.ready = l.ready[1:]
		to = g.take(to, most, l.turns)
	}
	n := 0
	for ; len(to) < limit && n < len(l.queue); n++ {
		f := l.queue[n]
		if f.Key == 0 {
			to = append(to, f)
			continue
		}
		g := l.groups[f.Key]
		switch {
		case g == nil:
			g = l.pool.newGroup()
			g.turn = l.turns
			l.groups[f.Key] = g
			to = append(to, f)
		case l.pool.kind.several && g.state == running && len(g.items) == 0 && g.turn == l.turns:
			to = append(to, f) // behind one of its key, in the same batch
		default:
			g.items = append(g.items, alone(f))
		}
	}
	clear(l.queue[:n])
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.setAlarm()
	return to
}

// alone cuts f loose from the memory of the fetch that brought it, if it may wait for
// long.
func alone(f *window.Flight) *window.Flight {
	if f.Window().FarBehind() {
		f.Message = clone(f.Message)
	}
	return f
}

func clone(m *dedup.Message) *dedup.Message {
	c := again(m)
	c.Key, c.Value = bytesClone(m.Key), bytesClone(m.Value)
	if m.Headers != nil {
		c.Headers = make(dedup.Headers, len(m.Headers))
		for i, h := range m.Headers {
			c.Headers[i] = dedup.Header{Key: h.Key, Value: bytesClone(h.Value)}
		}
	}
	return c
}

// bytesClone keeps nil and empty apart.
func bytesClone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// again returns a message for another try, while an earlier one may still have m.
// The Claim is that try's.
func again(m *dedup.Message) *dedup.Message {
	return &dedup.Message{
		Topic: m.Topic, Key: m.Key, Value: m.Value, Headers: m.Headers, Position: m.Position,
		Published: m.Published, Delivery: m.Delivery, Raw: m.Raw, Since: m.Since,
	}
}

// outcome is what became of a message that take returned.
type outcome struct {
	flight *window.Flight
	fate   fate
	due    time.Time // of a message to be tried again
}

type fate uint8

const (
	done   fate = iota // settled, or its partition has halted
	retry              // to be tried again when it is due
	untold             // it was not tried
)

// finish takes back what take returned, in its order, or a part of it: of each key
// all that take returned. The caller holds mu.
func (l *Line) finish(outcomes []outcome) {
	if l.stopped.Load() {
		return
	}
	// From the back, so that messages to be tried again come to the front of their group
	// in order.
	for _, o := range slices.Backward(outcomes) {
		f := o.flight
		g := l.groups[f.Key]
		if f.Key == 0 {
			g = nil
		}
		if o.fate == done {
			continue
		}
		if g == nil {
			g = l.pool.newGroup()
			if f.Key != 0 {
				l.groups[f.Key] = g
			}
		}
		g.items = slices.Insert(g.items, 0, f)
		g.retry = o.fate == retry
		g.due = o.due
		if f.Key == 0 {
			l.settleGroup(0, g)
		}
	}
	for _, o := range outcomes {
		if g := l.groups[o.flight.Key]; g != nil && g.state == running {
			l.settleGroup(o.flight.Key, g)
		}
	}
	l.setAlarm()
}

// settleGroup gives a group whose call has ended its next state. The caller holds mu.
func (l *Line) settleGroup(key uint64, g *group) {
	switch {
	case len(g.items) == 0:
		delete(l.groups, key)
		l.pool.oldGroup(g)
	case g.retry:
		l.held.hold(g, g.due)
	default:
		g.state = ready
		l.ready = append(l.ready, g)
	}
}

// setAlarm has the Line offered when the first held group is due, if that is still to
// come. The caller holds mu, and offers the Line otherwise.
func (l *Line) setAlarm() {
	if len(l.held) == 0 {
		return
	}
	in := time.Until(l.held[0].due)
	switch {
	case in <= 0:
	case l.alarm == nil:
		l.alarm = time.AfterFunc(in, func() {
			l.pool.mu.Lock()
			defer l.pool.mu.Unlock()
			l.setAlarm()
			l.pool.offer(l)
		})
	default:
		l.alarm.Reset(in)
	}
}
