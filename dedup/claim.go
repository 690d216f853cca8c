package dedup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// claim asks the store for the keys of xs, and decides what can be decided
// without the handler.
func (d *Deduplicator) claim(ctx context.Context, xs []*delivery) {
	asked := make([]*delivery, 0, len(xs))
	ops := make([]Op, 0, len(xs))
	now := time.Now()
	for _, x := range xs {
		if !x.flying {
			continue // without a key
		}
		asked = append(asked, x)
		x.sent = now
		ops = append(ops, Op{
			Kind: OpClaim, ID: x.id, Nonce: rand.Uint64(), Floor: Token(d.floor.Load()),
			Lease: d.o.Lease, TTL: d.o.TTL, Fingerprint: x.fingerprint, Position: x.m.Position,
		})
	}
	replies, err := d.ask(ctx, ops)
	var since time.Time
	for _, r := range replies {
		if r.Err == nil && r.Status == StatusGranted {
			since = d.since(ctx)
			break
		}
	}
	for i, x := range asked {
		switch {
		case err != nil:
			x.end(Unavailable, err)
			x.res.RetryAfter = pause(time.Second)
		case replies[i].Err != nil:
			x.end(Unavailable, replies[i].Err)
			x.res.RetryAfter = pause(time.Second)
			x.res.Halt = d.o.OnStoreError == StoreHalt
		default:
			d.admit(x, replies[i], since)
		}
	}
}

// ask sends claims, and those whose state is unknown again, for a short while:
// the nonce makes that safe, and a claim whose reply was lost would block its
// key for a whole lease.
func (d *Deduplicator) ask(ctx context.Context, ops []Op) ([]Reply, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	replies, err := d.combiner.do(ctx, ops)
	if err != nil {
		return nil, err
	}
	for _, wait := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		failed := unanswered(replies)
		if len(failed) == 0 || sleep(ctx, wait) != nil {
			break
		}
		again, err := d.combiner.do(ctx, pick(ops, failed))
		if err != nil {
			break // the first replies stand: unknown
		}
		for i, at := range failed {
			replies[at] = again[i]
		}
	}
	return replies, nil
}

// admit turns the store's answer to a claim into what happens next.
func (d *Deduplicator) admit(x *delivery, reply Reply, since time.Time) {
	rec := reply.Record
	x.rec = rec
	x.res.First = rec.First
	switch reply.Status {
	case StatusGranted:
		x.claimed = true
		x.lease.id, x.lease.token = x.id, rec.Token
		x.op = Op{Kind: OpRelease, ID: x.id, Token: rec.Token, TTL: d.o.TTL, Uncounted: true}
		c := &x.m.Claim
		c.Token, c.Attempt, c.Ambiguous = rec.Token, rec.Attempt+1, rec.Ambiguous
		c.Stale = d.stale(x.m, rec, since)
		switch {
		case d.o.MaxAttempts > 0 && rec.Attempt >= d.o.MaxAttempts:
			x.park, x.parkedAs = fmt.Errorf("%w: %d runs failed or died", ErrAttempts, rec.Attempt), Parked
		case c.Ambiguous && d.o.OnAmbiguous != PolicyProcess:
			x.end(Ambiguous, ErrAmbiguous)
			d.decide(x, d.o.OnAmbiguous, ErrAmbiguous)
		case c.Stale && d.o.OnStale != PolicyProcess:
			x.end(Stale, ErrStale)
			d.decide(x, d.o.OnStale, ErrStale)
		default:
			x.run = true
		}
	case StatusHeld:
		x.end(Busy, ErrBusy)
		x.res.RetryAfter = pause(min(d.o.Lease, time.Second) / 2)
	case StatusDone:
		x.end(Duplicate, nil)
		x.res.Value, x.res.Omitted, x.res.settled = rec.Result, rec.Omitted, true
	case StatusParked:
		x.end(Parked, errors.New(string(rec.Result)))
		x.res.settled = true
	case StatusConflict:
		if d.o.OnConflict == PolicySkip && rec.State != StateDone && rec.State != StateParked {
			x.end(Busy, ErrConflict)
			x.res.RetryAfter = pause(min(d.o.Lease, time.Second) / 2)
			return
		}
		x.end(Conflict, fmt.Errorf("%w, at %v", ErrConflict, rec.First))
		d.decide(x, d.o.OnConflict, x.res.Err)
	default:
		x.end(Unavailable, fmt.Errorf("%w: it answered a claim with %v", ErrStore, reply.Status))
		x.res.RetryAfter = pause(time.Second)
	}
}

// since returns how far back the store's memory reaches. A store that cannot
// tell vouches for nothing: everything is stale until it can.
func (d *Deduplicator) since(ctx context.Context) time.Time {
	v, err := d.store.Vouch(ctx)
	if err != nil {
		return time.Now()
	}
	return v.Since
}

// stale reports whether a record of m, made before rec was, could have been
// forgotten. It counts from when rec was first made, so that the answer for a
// message is the same in every attempt.
func (d *Deduplicator) stale(m *Message, rec Record, since time.Time) bool {
	if m.Published.IsZero() {
		return false
	}
	horizon := rec.FirstSeen.Add(-d.o.TTL)
	if since.After(horizon) {
		horizon = since
	}
	return m.Published.Before(horizon.Add(d.o.ClockSkew))
}

func unanswered(replies []Reply) (at []int) {
	for i := range replies {
		if replies[i].Err != nil {
			at = append(at, i)
		}
	}
	return at
}
