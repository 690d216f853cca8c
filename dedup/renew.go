package dedup

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// renewer extends the leases of all running deliveries, in batches, from one
// list. It fences itself: a lease that was not renewed by its end, counted on
// the local monotonic clock from before the operation was first sent, is lost,
// whatever the store may say later.
//
// All leases have one length, so the list is in the order of their ends, and a
// new one belongs at its tail, or close to it.
type renewer struct {
	ctx   context.Context
	apply func([]Op) []Reply
	lease time.Duration
	ttl   time.Duration

	mu      sync.Mutex
	first   *lease
	last    *lease
	started bool
	stopped bool
	poke    chan struct{} // the list was empty and is not
	done    chan struct{} // the goroutine has ended
}

// lease is one held claim.
type lease struct {
	id    ID
	token Token
	end   time.Time       // by the local clock
	due   time.Time       // when to renew it
	lost  func(why error) // called at most once, when nobody renews it any more

	closing atomic.Bool // the handler has finished: the store's answer to its record counts

	held       bool // in the list
	prev, next *lease
}

func (r *renewer) init(ctx context.Context, apply func([]Op) []Reply, length, ttl time.Duration) {
	r.ctx, r.apply, r.lease, r.ttl = ctx, apply, length, ttl
	r.poke = make(chan struct{}, 1)
	r.done = make(chan struct{})
}

// hold keeps l alive from now on. sent is when its claim was first sent.
func (r *renewer) hold(l *lease, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		l.lost(ErrClosed)
		return
	}
	l.end, l.due = sent.Add(r.lease), sent.Add(r.lease/3)
	if !r.started {
		r.started = true
		go r.run()
	}
	if r.first == nil {
		select {
		case r.poke <- struct{}{}:
		default:
		}
	}
	r.push(l)
}

// drop lets l lapse. Its lost is not called after drop returned, unless that
// call has begun before.
func (r *renewer) drop(l *lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(l)
}

// stop ends the goroutine and waits for it. Leases still held are lost: nobody
// renews them any more.
func (r *renewer) stop() {
	r.mu.Lock()
	if !r.stopped {
		r.stopped = true
		if !r.started {
			close(r.done)
		}
		select {
		case r.poke <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	<-r.done
}

// run decides when; a second goroutine, at most one at a time, asks the store,
// so that a store that hangs delays no fence.
func (r *renewer) run() {
	defer close(r.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	answers := make(chan []Reply, 1)
	var asked []*lease
	var sent time.Time
	for {
		now := time.Now()
		r.mu.Lock()
		stopped := r.stopped
		var lost []*lease
		for l := r.first; l != nil && (stopped || !l.end.After(now)); l = r.first {
			r.remove(l)
			lost = append(lost, l)
		}
		var ops []Op
		if asked == nil && !stopped {
			asked, ops = r.due(now)
		}
		wake := now.Add(time.Hour)
		if r.first != nil {
			wake = r.first.end
			if asked == nil && r.first.due.Before(wake) {
				wake = r.first.due
			}
		}
		r.mu.Unlock()
		for _, l := range lost {
			if stopped {
				l.lost(ErrClosed)
			} else {
				l.lost(ErrLeaseLost)
			}
		}
		if ops != nil {
			sent = now
			go func() { answers <- r.apply(ops) }()
		}
		if stopped {
			if asked != nil {
				<-answers // ends soon: the context of Apply is cancelled
			}
			return
		}
		timer.Reset(time.Until(wake))
		select {
		case <-timer.C:
		case <-r.poke:
		case replies := <-answers:
			for _, l := range r.renewed(asked, replies, sent) {
				l.lost(ErrLeaseLost)
			}
			asked = nil
		}
	}
}

// due returns the leases to renew now, and the operations that do it. It takes
// those due a little later along: fewer, larger batches.
func (r *renewer) due(now time.Time) (asked []*lease, ops []Op) {
	soon := now.Add(r.lease / 12)
	for l := r.first; l != nil && len(ops) < MaxBatch && !l.due.After(soon); l = l.next {
		if len(ops) == 0 && l.due.After(now) {
			break
		}
		asked = append(asked, l)
		ops = append(ops, Op{Kind: OpExtend, ID: l.id, Token: l.token, Lease: r.lease, TTL: r.ttl})
	}
	return asked, ops
}

// renewed notes the store's answers and returns the leases that it refused.
func (r *renewer) renewed(asked []*lease, replies []Reply, sent time.Time) (lost []*lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, l := range asked {
		switch {
		case !l.held: // dropped, or lost, meanwhile
		case replies[i].Err != nil:
			l.due = time.Now().Add(r.lease / 12)
		case replies[i].Status == StatusOK:
			r.remove(l)
			l.end, l.due = sent.Add(r.lease), sent.Add(r.lease/3)
			r.push(l)
		default:
			r.remove(l)
			lost = append(lost, l)
		}
	}
	return lost
}

func (r *renewer) push(l *lease) {
	before := r.last
	for before != nil && before.end.After(l.end) {
		before = before.prev
	}
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

func (r *renewer) remove(l *lease) {
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
