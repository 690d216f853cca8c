// Package renew keeps the leases of running handlers alive, and fences those that it cannot.
package renew

import (
	"context"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/reason"
)

// Renewer extends the leases of all running deliveries, in batches, from one
// list. It fences itself: a lease that was not renewed by its end, counted on
// the local monotonic clock from before the operation was first sent, is lost,
// whatever the store may say later.
//
// All leases have one length, so the list is in the order of their ends, and a
// new one belongs at its tail, or close to it.
type Renewer struct {
	apply func([]driver.Op) []driver.Reply
	lease time.Duration
	ttl   time.Duration

	mu      sync.Mutex
	first   *Lease
	last    *Lease
	wake    time.Time // when the goroutine looks at the list again
	started bool
	stopped bool
	asking  bool          // the store is, about leases that can be dropped meanwhile
	poke    chan struct{} // look now
	reports sync.WaitGroup
	done    chan struct{} // the goroutine has ended, and the reports
}

// Holder is told at most once that its claim is lost: nobody renews it any more. hung
// says that its handler outlived its timeout, and the lease. The renewer's mutex is held.
type Holder interface {
	Lost(why error, hung bool)
}

// Lease is one held claim.
type Lease struct {
	ID     driver.ID
	Token  driver.Token
	Holder Holder

	// Under the renewer's mu.
	end     time.Time // by the local clock
	due     time.Time // when to renew it
	until   time.Time // not renewed after that; zero: for ever
	lapsing bool      // until has passed: only fenced from now on
	fate    error     // why it was lost; nil: it was not. Read it after Drop
	held    bool      // in the list
	prev    *Lease
	next    *Lease
}

// Init comes first. apply carries out the extensions; length is that of each lease, and ttl
// that of the records.
func (r *Renewer) Init(apply func([]driver.Op) []driver.Reply, length, ttl time.Duration) {
	r.apply, r.lease, r.ttl = apply, length, ttl
	r.poke = make(chan struct{}, 1)
	r.done = make(chan struct{})
}

// Report runs f beside the renewer. Stop waits for it.
func (r *Renewer) Report(f func()) { r.reports.Go(f) }

// Hold keeps ls alive from now on. sent is when their claims were first sent.
func (r *Renewer) Hold(sent time.Time, ls ...*Lease) {
	if len(ls) == 0 {
		return
	}
	now := time.Now()
	end, due := sent.Add(r.lease), sent.Add(r.lease/3)
	r.mu.Lock()
	defer r.mu.Unlock()
	var why error
	switch {
	case r.stopped:
		why = reason.ErrClosed
	case !end.After(now):
		why = reason.ErrLeaseLost // the answer came too late
	case !r.started:
		r.started = true
		go r.run()
	case due.Before(r.wake):
		r.nudge()
	}
	before := r.last
	for before != nil && before.end.After(end) {
		before = before.prev
	}
	for _, l := range ls {
		if why != nil {
			l.lose(why)
			continue
		}
		l.end, l.due = end, due
		r.insert(l, before)
		before = l
	}
}

// Lift undoes the until of Begin.
func (r *Renewer) Lift(ls ...*Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range ls {
		l.until = time.Time{}
		if l.lapsing {
			l.lapsing = false
			r.nudge()
		}
	}
}

// Drop lets ls lapse. None of them is lost any more, and fate stays as it is.
func (r *Renewer) Drop(ls ...*Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range ls {
		r.remove(l)
	}
}

// Begin reports whether all the claims are ours for sure, now. If so they lapse if
// they are still held at until, unless that is zero.
func (r *Renewer) Begin(now, until time.Time, ls ...*Lease) (alive bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range ls {
		if !l.held || !l.end.After(now) {
			return false
		}
	}
	for _, l := range ls {
		l.until = until
	}
	return true
}

// Limit has ls lapse at until, unless that is zero.
func (r *Renewer) Limit(until time.Time, ls ...*Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range ls {
		l.until = until
	}
}

// Remembers reports whether it may refer to leases that were dropped.
func (r *Renewer) Remembers() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asking
}

// Stop ends the goroutine and waits for it, until ctx ends: a store may hang in
// an Apply. Leases still held are lost: nobody renews them any more.
func (r *Renewer) Stop(ctx context.Context) {
	r.mu.Lock()
	if !r.stopped {
		r.stopped = true
		if !r.started {
			close(r.done)
		}
		r.nudge()
	}
	r.mu.Unlock()
	select {
	case <-r.done:
	case <-ctx.Done():
	}
}

func (r *Renewer) nudge() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Fate returns why l was lost, or nil. It may be called once l is dropped.
func (l *Lease) Fate() error { return l.fate }

// lose tells the holder. The caller holds mu.
func (l *Lease) lose(why error) {
	l.fate = why
	l.Holder.Lost(why, !l.until.IsZero() && !l.until.After(time.Now()))
}

// run decides when; a second goroutine, at most one at a time, asks the store,
// so that a store that hangs delays no fence.
func (r *Renewer) run() {
	defer close(r.done)
	defer r.reports.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	answers := make(chan []driver.Reply, 1)
	var asked []*Lease
	var sent time.Time
	for {
		now := time.Now()
		var ops []driver.Op
		r.mu.Lock()
		stopped := r.stopped
		r.fence(now)
		if asked == nil && !stopped {
			asked, ops = r.due(now)
			r.asking = asked != nil
		}
		r.wake = now.Add(time.Hour)
		if r.first != nil {
			r.wake = r.first.end
			if l := r.renewable(); asked == nil && l != nil && l.due.Before(r.wake) {
				r.wake = l.due
			}
		}
		wake := r.wake
		r.mu.Unlock()
		if ops != nil {
			sent = now
			go func() { answers <- r.apply(ops) }()
		}
		if stopped {
			if asked != nil {
				<-answers
			}
			return
		}
		timer.Reset(time.Until(wake))
		select {
		case <-timer.C:
		case <-r.poke:
		case replies := <-answers:
			r.renewed(asked, replies, sent)
			asked = nil
		}
	}
}

// fence loses the leases that have ended; all of them once it is stopped. The
// caller holds mu.
func (r *Renewer) fence(now time.Time) {
	why := reason.ErrLeaseLost
	if r.stopped {
		why = reason.ErrClosed
	}
	for l := r.first; l != nil && (r.stopped || !l.end.After(now)); l = r.first {
		r.remove(l)
		l.lose(why)
	}
}

// due returns the leases to renew now, and the operations that do it. It takes
// those due a little later along: fewer, larger batches. The caller holds mu.
func (r *Renewer) due(now time.Time) (asked []*Lease, ops []driver.Op) {
	if l := r.renewable(); l == nil || l.due.After(now) {
		return nil, nil
	}
	soon := now.Add(r.lease / 12)
	for l := r.first; l != nil && len(ops) < driver.MaxBatch && (l.lapsing || !l.due.After(soon)); l = l.next {
		switch {
		case l.lapsing:
		case !l.until.IsZero() && !l.until.After(now):
			l.lapsing = true // kept in the list: fence tells its holder
		default:
			asked = append(asked, l)
			ops = append(ops, driver.Op{Kind: driver.OpExtend, ID: l.ID, Token: l.Token, Lease: r.lease, TTL: r.ttl})
		}
	}
	return asked, ops
}

// renewable returns the first lease that is to be renewed.
func (r *Renewer) renewable() *Lease {
	l := r.first
	for l != nil && l.lapsing {
		l = l.next
	}
	return l
}

// renewed notes the store's answers.
func (r *Renewer) renewed(asked []*Lease, replies []driver.Reply, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking = false
	end, due := sent.Add(r.lease), sent.Add(r.lease/3)
	before := r.last // of the leases that were taken while the store was asked
	for before != nil && before.end.After(end) {
		before = before.prev
	}
	for i, l := range asked {
		switch {
		case !l.held: // dropped, or lost, meanwhile
		case replies[i].Err != nil:
			l.due = time.Now().Add(r.lease / 12)
		case replies[i].Status == driver.StatusOK:
			if before == l {
				before = l.prev
			}
			r.remove(l)
			l.end, l.due = end, due
			r.insert(l, before)
			before = l
		default:
			if before == l {
				before = l.prev
			}
			r.remove(l)
			l.lose(reason.ErrLeaseLost)
		}
	}
}

// insert puts l behind before, or first.
func (r *Renewer) insert(l, before *Lease) {
	l.held, l.prev = true, before
	if before == nil {
		l.next, r.first = r.first, l
	} else {
		l.next, before.next = before.next, l
	}
	if l.next == nil {
		r.last = l
	} else {
		l.next.prev = l
	}
}

func (r *Renewer) remove(l *Lease) {
	if !l.held {
		return
	}
	if l.prev == nil {
		r.first = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next == nil {
		r.last = l.prev
	} else {
		l.next.prev = l.prev
	}
	l.held, l.prev, l.next = false, nil, nil
}
