package metrics

import (
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

const (
	// linger is how long a message that was not settled counts as unfinished after it was
	// due again. It may never come again here, because another consumer gets its next delivery.
	linger = 5 * time.Minute
	// maxWaiting is how many such messages are remembered. Later ones are not: they are
	// younger, in the order of a log, and only the oldest counts.
	maxWaiting = 10_000
)

// unfinished holds the messages that are in flight, and the messages that are to be delivered
// again.
type unfinished struct {
	mu      sync.Mutex
	flying  map[*dedup.Message]flight
	waiting map[dedup.Position]waiter
	count   int // deliveries in flight
}

type flight struct {
	since      time.Time // when the message was published
	deliveries int       // number of deliveries of the same *dedup.Message at once
}

type waiter struct {
	since time.Time // when the message was published
	until time.Time // when it no longer counts
}

func (u *unfinished) init() {
	u.flying = make(map[*dedup.Message]flight)
	u.waiting = make(map[dedup.Position]waiter)
}

// start notes a delivery of m, which began at now.
func (u *unfinished) start(m *dedup.Message, now time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.flying[m]
	if f.deliveries == 0 {
		f.since = m.Published
		if f.since.IsZero() {
			f.since = now
		}
		if len(u.waiting) > 0 {
			if w, ok := u.waiting[m.Position]; ok && w.since.Before(f.since) {
				f.since = w.since // a message without a timestamp: its first delivery counts
			}
		}
	}
	f.deliveries++
	u.flying[m] = f
	u.count++
}

// end notes that a delivery settled m.
func (u *unfinished) end(m *dedup.Message) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.land(m)
	if len(u.waiting) > 0 {
		delete(u.waiting, m.Position)
	}
}

// wait notes that a delivery did not settle m, which is due again after a while.
func (u *unfinished) wait(m *dedup.Message, after time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	since := u.land(m)
	if _, known := u.waiting[m.Position]; known || len(u.waiting) < maxWaiting {
		u.waiting[m.Position] = waiter{since: since, until: time.Now().Add(after).Add(linger)}
	}
}

// land takes a delivery of m out of flight.
func (u *unfinished) land(m *dedup.Message) (since time.Time) {
	f := u.flying[m]
	if f.deliveries == 0 {
		return time.Now() // the hooks were set while it ran
	}
	f.deliveries--
	u.count--
	if f.deliveries == 0 {
		delete(u.flying, m)
	} else {
		u.flying[m] = f
	}
	return f.since
}

// look returns how many deliveries are in flight, and when the oldest unfinished message was
// published. The time is zero if there is no unfinished message.
func (u *unfinished) look(now time.Time) (count int, oldest time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	older := func(t time.Time) {
		if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	for _, f := range u.flying {
		older(f.since)
	}
	for p, w := range u.waiting {
		if w.until.Before(now) {
			delete(u.waiting, p)
		} else {
			older(w.since)
		}
	}
	return u.count, oldest
}
