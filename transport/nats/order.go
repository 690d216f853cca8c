package natstransport

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// OrderByHeader returns a function for Config.OrderBy: messages with the same value of the
// header are handled in their order. A message without the header has no order.
func OrderByHeader(name string) func(*dedup.Message) string {
	return func(m *dedup.Message) string {
		value, _ := m.Headers.Get(name)
		return string(value)
	}
}

// OrderByToken returns a function for Config.OrderBy: messages whose subjects have the same n-th
// token, counted from 1, are handled in their order. The third token of orders.eu.42 is 42. A
// message whose subject has fewer tokens has no order.
func OrderByToken(n int) func(*dedup.Message) string {
	return func(m *dedup.Message) string {
		i := 0
		for token := range strings.SplitSeq(m.Topic, ".") {
			if i++; i == n {
				return token
			}
		}
		return ""
	}
}

// order lets one message of each key go on at a time, the oldest first.
type order struct {
	by func(*dedup.Message) string

	mu     sync.Mutex
	keys   map[string]*turns
	shut   bool        // nothing begins, until what comes again has come
	kept   []*delivery // those that came since
	beyond bool        // one of them had never been delivered before, so that nothing more comes again
}

// turns is what is known of a key.
type turns struct {
	busy    bool                    // one of its messages goes on
	behind  []*delivery             // those that follow it, by sequence
	settled int64                   // the sequence of the last one that was
	missed  map[int64]time.Duration // the sequences of those that were not settled and come again, and until when, as session.now
}

func newOrder(by func(*dedup.Message) string) *order {
	return &order{by: by, keys: make(map[string]*turns)}
}

// first returns true if d may go on. Else it comes out of next when its turn has come.
func (o *order) first(d *delivery) bool {
	d.key = o.by(&d.message)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.shut:
		o.kept = append(o.kept, d)
		o.beyond = o.beyond || d.message.Delivery == 1
		return false
	case d.key == "":
		return true
	}
	return o.turn(d)
}

// turn is first for one that has a key. The caller holds mu.
func (o *order) turn(d *delivery) bool {
	l := o.keys[d.key]
	if l == nil {
		l = &turns{}
		o.keys[d.key] = l
	}
	if l.busy {
		at, _ := slices.BinarySearchFunc(l.behind, d.sequence(), func(d *delivery, n int64) int { return cmp.Compare(d.sequence(), n) })
		l.behind = slices.Insert(l.behind, at, d)
		return false
	}
	l.busy = true
	return true
}

// shutDown keeps what comes from now on until it can be sorted: the server delivers what
// comes again in no order.
func (o *order) shutDown() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shut = true
}

// open ends that, and returns those of what was kept that may go on.
func (o *order) open() (first []*delivery) {
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.SortStableFunc(o.kept, func(a, b *delivery) int { return cmp.Compare(a.sequence(), b.sequence()) })
	for _, d := range o.kept {
		if d.key == "" || o.turn(d) {
			first = append(first, d)
		}
	}
	o.shut, o.kept, o.beyond = false, nil, false
	return first
}

// misses says that more may come again than was known.
func (o *order) misses() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.beyond = false
}

// gathered returns how many are kept, and whether there is nothing more to keep.
func (o *order) gathered() (n int, all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.kept), o.beyond
}

// isShut says whether what comes is kept.
func (o *order) isShut() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shut
}

// early says that one which d follows was not settled, and has not come again.
func (o *order) early(d *delivery) bool {
	if d.key == "" {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for n := range o.keys[d.key].missed {
		if n < d.sequence() {
			return true
		}
	}
	return false
}

// next ends the turn of d, and returns the one behind it; nil if there is none. If d was
// not settled, the server delivers it again, and it is waited for until then.
func (o *order) next(d *delivery, settled bool, until time.Duration) *delivery {
	if d.key == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.keys[d.key]
	switch {
	case settled:
		delete(l.missed, d.sequence())
		l.settled = d.sequence()
	case d.sequence() == l.settled: // by what came again of it, which passed d
	case !d.binding.orphaned(): // else the sequence may mean another message by now
		if l.missed == nil {
			l.missed = make(map[int64]time.Duration)
		}
		l.missed[d.sequence()] = until
	}
	if len(l.behind) > 0 {
		next := l.behind[0]
		l.behind[0] = nil
		l.behind = l.behind[1:]
		return next
	}
	l.busy = false
	o.tidy(d.key, l)
	return nil
}

// tidy forgets a key that nothing is known of. The caller holds mu.
func (o *order) tidy(key string, l *turns) {
	if !l.busy && len(l.missed) == 0 {
		delete(o.keys, key)
	}
}

// giveUp waits no longer for what should have come again before now: another member has
// it, or the stream has it no more. It returns how many these are.
func (o *order) giveUp(now time.Duration) (gone int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, l := range o.keys {
		for n, until := range l.missed {
			if until < now {
				delete(l.missed, n)
				gone++
			}
		}
		o.tidy(key, l)
	}
	return gone
}

// renew waits until then for what was not settled.
func (o *order) renew(until time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.keys {
		for n := range l.missed {
			l.missed[n] = until
		}
	}
}
