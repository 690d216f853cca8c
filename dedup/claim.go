package dedup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// claimer is the step that takes the keys.
type claimer struct {
	o       *Options
	asker   *asker
	flights *flights
	teller  *teller
}

// claim asks the store for the keys of xs, and decides what can be decided
// without the handler. It returns when it first asked.
func (d *claimer) claim(ctx context.Context, xs []*delivery) (sent time.Time) {
	buffer := d.asker.buffers.Get().(*[]driver.Op)
	sent = time.Now()
	ops := d.ops(xs, (*buffer)[:0])
	if len(ops) == 0 {
		return sent
	}
	asked, err := d.asker.ask(ctx, ops)
	if err != nil {
		for _, x := range xs {
			if x.res.Outcome == 0 {
				x.giveUp(err)
			}
		}
		return sent // the leader of a batch may be sending ops still
	}
	defer asked.Done()
	d.asker.giveBack(buffer, ops)
	replies := asked.Replies
	var since time.Time
	var vouchErr error
	for i := range replies {
		if replies[i].Err == nil && replies[i].Status == driver.StatusGranted {
			var v driver.Vouch
			v, vouchErr = d.asker.vouch()
			since = v.Since
			break
		}
	}
	for _, x := range xs {
		if x.res.Outcome != 0 {
			continue
		}
		reply := &replies[0]
		replies = replies[1:]
		if reply.Err != nil {
			d.unavailable(x, reply.Err)
			continue
		}
		x.known = asked.At()
		d.admit(x, reply, since)
		switch {
		case !x.claimed:
		case ctx.Err() != nil: // nothing new is started
			x.giveUp(context.Cause(ctx))
		case vouchErr != nil && d.o.OnStale != PolicyProcess:
			x.run, x.park = false, nil
			d.unavailable(x, vouchErr)
		case vouchErr != nil:
			x.m.Claim.Stale = true // nobody knows what is forgotten
		}
	}
	d.flights.granted(xs)
	return sent
}

// ops appends the claims of those of xs that are not decided.
func (d *claimer) ops(xs []*delivery, ops []driver.Op) []driver.Op {
	for _, x := range xs {
		if x.res.Outcome != 0 {
			continue // decided without a claim
		}
		ops = append(ops, driver.Op{
			Kind: driver.OpClaim, ID: x.id, Nonce: rand.Uint64(), Floor: Token(d.asker.floor.Load()),
			Lease: d.o.Lease, TTL: d.o.TTL, Fingerprint: x.fingerprint, Tag: d.o.tag, Position: x.m.Position,
		})
	}
	return ops
}

func (d *claimer) unavailable(x *delivery, err error) {
	x.end(Unavailable, err)
	x.res.RetryAfter = pause(time.Second)
	x.res.Halt = (d.o.OnStoreError == StoreHalt || driver.IsPermanent(err)) && d.asker.ctx.Err() == nil
}

// admit turns the store's answer to a claim into what happens next.
func (d *claimer) admit(x *delivery, reply *driver.Reply, since time.Time) {
	rec := &reply.Record
	x.firstSeen, x.res.First = rec.FirstSeen, rec.First
	switch reply.Status {
	case driver.StatusGranted:
		x.claimed = true
		if x.lease == nil {
			x.lease = &x.own
		}
		x.lease.ID, x.lease.Token, x.lease.Holder = x.id, rec.Token, x
		x.ending = ending{kind: driver.OpRelease, uncounted: true}
		c := &x.m.Claim
		c.Token, c.Attempt, c.Ambiguous = rec.Token, rec.Attempt+1, rec.Ambiguous
		c.Stale = d.stale(x.m, rec.FirstSeen, since)
		switch {
		case d.o.MaxAttempts > 0 && rec.Attempt >= d.o.MaxAttempts:
			c.Attempt = rec.Attempt // there will be no other
			x.park, x.parkedAs = fmt.Errorf("%w: %d runs failed or died", ErrAttempts, rec.Attempt), Parked
		case c.Ambiguous && d.o.OnAmbiguous != PolicyProcess:
			x.end(Ambiguous, ErrAmbiguous)
			x.decide(d.o.OnAmbiguous, ErrAmbiguous)
		case c.Stale && d.o.OnStale != PolicyProcess:
			x.end(Stale, ErrStale)
			x.decide(d.o.OnStale, ErrStale)
		default:
			x.run = true
		}
	case driver.StatusHeld:
		x.end(Busy, ErrBusy)
		x.res.RetryAfter = d.busyWait()
	case driver.StatusDone:
		x.end(Duplicate, nil)
		x.res.Value, x.res.Omitted, x.res.settled = rec.Result, rec.Omitted, true
	case driver.StatusParked:
		x.end(AlreadyParked, errors.New(string(rec.Result)))
		x.res.settled = true
	case driver.StatusConflict:
		if d.o.OnConflict == PolicySkip && rec.State != driver.StateDone && rec.State != driver.StateParked {
			x.end(Busy, ErrConflict)
			x.res.RetryAfter = d.busyWait()
			return
		}
		x.conflict(d.o.OnConflict, rec.First)
	default:
		d.unavailable(x, fmt.Errorf("%w: it answered a claim with %v", ErrStore, reply.Status))
	}
}

// busyWait is how long to leave a key alone that another holds.
func (d *claimer) busyWait() time.Duration { return pause(d.o.patience() / 2) }

// stale reports whether a record of m, made before rec was, could have been
// forgotten. It counts from when rec was first made, so that the answer for a
// message is the same in every attempt.
func (d *claimer) stale(m *Message, firstSeen, since time.Time) bool {
	if m.Published.IsZero() {
		return false
	}
	by := m.Published.Add(-d.o.ClockSkew)
	if by.Before(since) {
		d.teller.freshStore(since, since.Add(d.o.ClockSkew))
		return true
	}
	return by.Before(firstSeen.Add(-d.o.TTL)) || by.Before(m.Since)
}
