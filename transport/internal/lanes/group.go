package lanes

import (
	"container/heap"
	"slices"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// state says what a group waits for.
type state uint8

const (
	running state = iota // a call has messages of its key; the items of the group wait for it
	held                 // the first item is to be tried again when it is due
	ready                // the first item may be tried now
)

// group is the messages of one key that may not be tried yet, or not in the order of
// the queue. A message without a key that is tried again is a group of its own.
type group struct {
	state state
	items []*window.Flight // in the order of their offsets
	due   time.Time        // of a held group
	retry bool             // the first item was tried before: it is tried by itself
	turn  uint64           // the Line.turns of the call that runs all of the key but items; 0: none, or a retry
}

// take removes up to limit items from the front: one alone if it is tried again.
func (g *group) take(to []*window.Flight, limit int, turn uint64) []*window.Flight {
	n := min(len(g.items), limit)
	if g.retry {
		n = min(n, 1)
	}
	if g.turn = turn; g.retry {
		g.turn = 0
	}
	to = append(to, g.items[:n]...)
	g.items = slices.Delete(g.items, 0, n)
	g.retry = false
	g.state = running
	return to
}

// schedule is the held groups by the time at which they are due: a heap.
type schedule []*group

func (s schedule) Len() int           { return len(s) }
func (s schedule) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s schedule) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }

// Push implements heap.Interface.
func (s *schedule) Push(x any) { *s = append(*s, x.(*group)) }

// Pop implements heap.Interface.
func (s *schedule) Pop() any {
	old := *s
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	return g
}

// hold puts g, which is not held, into the schedule.
func (s *schedule) hold(g *group, due time.Time) {
	g.state, g.due = held, due
	heap.Push(s, g)
}

// next removes the first group that is due, or returns nil.
func (s *schedule) next(now time.Time) *group {
	if len(*s) == 0 || (*s)[0].due.After(now) {
		return nil
	}
	return heap.Pop(s).(*group)
}
