package kafkatransport

import (
	"slices"
	"time"
)

// line is what one worker has to do: the items of its queue, and before them
// those that were tried and not settled, each with the later ones of its key
// behind it. Other keys pass these by.
type line struct {
	*queue
	held   map[lineKey]*held
	loose  uint64 // counts held items without a key
	polled []item
}

// lineKey is within what order is kept.
type lineKey struct {
	partition *partition
	key       string
	loose     uint64 // tells messages without a key from each other; 0 for those with one
}

type held struct {
	items []item    // in order
	due   time.Time // when the first is tried again, by itself; zero: it was not tried yet
}

// retry is an item to be tried again; with a zero due it has not been tried.
type retry struct {
	item
	due time.Time
}

func newLine() *line { return &line{queue: newQueue(), held: make(map[lineKey]*held)} }

func (l *line) keyOf(it item) lineKey {
	k := lineKey{partition: it.partition, key: string(it.message.Key)}
	if it.message.Key == nil {
		l.loose++
		k.loose = l.loose
	}
	return k
}

// take waits for items and returns them in to, which it overwrites, at most
// limit. Those of one key are in order. It returns none once quit is closed.
func (l *line) take(to []item, limit int, quit <-chan struct{}) []item {
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		if len(l.held) == 0 {
			to = l.poll(to[:0], limit)
		} else {
			to = l.fresh(l.due(to[:0], limit, time.Now()), limit)
		}
		if len(to) > 0 {
			return to
		}
		l.wait(quit)
	}
}

// due appends the held items whose time has come.
func (l *line) due(to []item, limit int, now time.Time) []item {
	for k, h := range l.held {
		n := 0
		switch {
		case len(h.items) == 0 || k.partition.halted.Load():
			delete(l.held, k)
		case h.due.IsZero():
			n = min(len(h.items), limit-len(to))
		case !h.due.After(now):
			n = min(1, limit-len(to))
		}
		if n > 0 {
			to = append(to, h.items[:n]...)
			h.items = slices.Delete(h.items, 0, n)
			h.due = time.Time{}
		}
	}
	return to
}

// fresh appends items of the queue. Those whose key is held are held too.
func (l *line) fresh(to []item, limit int) []item {
	for len(to) < limit {
		l.polled = l.poll(l.polled[:0], limit-len(to))
		if len(l.polled) == 0 {
			break
		}
		for _, it := range l.polled {
			if it.message.Key == nil {
				to = append(to, it)
			} else if h := l.held[lineKey{partition: it.partition, key: string(it.message.Key)}]; h != nil {
				h.items = append(h.items, it)
			} else {
				to = append(to, it)
			}
		}
		clear(l.polled)
	}
	return to
}

// hold takes back items that take returned last, in their order.
func (l *line) hold(items []retry) {
	for _, it := range slices.Backward(items) {
		k := l.keyOf(it.item)
		h := l.held[k]
		if h == nil {
			h = &held{}
			l.held[k] = h
		}
		h.items = slices.Insert(h.items, 0, it.item)
		h.due = it.due
	}
}

// wait waits for new items, or for the first of the held ones to be due.
func (l *line) wait(quit <-chan struct{}) {
	var due <-chan time.Time
	if len(l.held) > 0 {
		var first time.Time
		for _, h := range l.held {
			if first.IsZero() || h.due.Before(first) {
				first = h.due
			}
		}
		timer := time.NewTimer(time.Until(first))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-quit:
	case <-l.filled:
	case <-due:
	}
}

// sameKey says whether other must not be tried before it is settled.
func (it item) sameKey(other item) bool {
	a, b := it.message.Key, other.message.Key
	return it.partition == other.partition && a != nil && b != nil && string(a) == string(b)
}
