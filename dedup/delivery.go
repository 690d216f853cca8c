package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// delivery is one message on its way through: key, claim, handler, record.
type delivery struct {
	m           *Message
	id          ID
	fingerprint Fingerprint
	received    time.Time
	sent        time.Time // when its claim was first sent

	flying bool          // in flights
	ended  chan struct{} // closed when it leaves flights; nil: nobody waits
	batch  *delivery     // the first of the DoBatch call it belongs to; nil in Do
	leader *delivery     // earlier in the batch, with the same key and payload

	rec     Record // as the claim found it
	claimed bool   // the claim is ours
	lease   lease
	run     bool // the handler is to run
	took    time.Duration

	// How the claim ends, once known.
	park     error   // not nil: by a dead letter, for this reason
	parkedAs Outcome // what a confirmed dead letter makes of it
	op       Op      // with what it ends

	res Result
}

// end decides x.
func (x *delivery) end(outcome Outcome, err error) {
	x.res.Outcome, x.res.Err = outcome, err
}

// giveUp decides x as not processed, for no fault of its own; what it has
// claimed is released, uncounted.
func (x *delivery) giveUp(err error) {
	x.run, x.park = false, nil
	x.end(Unavailable, err)
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrLeaseLost) {
		x.res.Outcome = Busy
	}
	x.res.Halt = false
	x.res.RetryAfter = pause(100 * time.Millisecond)
}

// identify derives the key. A message without one is decided by OnUnkeyed.
func (d *Deduplicator) identify(x *delivery) bool {
	x.m.Claim = Claim{}
	key, err := deriveKey(d.key, x.m)
	if err == nil {
		x.id = d.ids.of(key)
		x.fingerprint, err = d.fingerprint(x.m)
	}
	if err == nil {
		x.res.ID = x.id
		x.m.Claim = Claim{ID: x.id, Key: key}
		return true
	}
	x.end(Unkeyed, err)
	d.decide(x, d.o.OnUnkeyed, err)
	return false
}

func (d *Deduplicator) fingerprint(m *Message) (f Fingerprint, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("dedup: message at %v: the fingerprint function: %w", m.Position, panicError(r))
		}
	}()
	return d.o.Fingerprint(m), nil
}

// decide applies a policy to x, whose Outcome names the reason.
func (d *Deduplicator) decide(x *delivery, p Policy, why error) {
	switch p {
	case PolicyProcess:
		x.run = true
	case PolicyPark:
		x.park, x.parkedAs = why, x.res.Outcome
	case PolicySkip:
		x.res.settled = true
	default:
		x.res.Halt = true
	}
}

// process takes deliveries, each in flight here or without a key, from the
// claim to the record.
func (d *Deduplicator) process(ctx context.Context, xs []*delivery, h BatchHandler) {
	if err := d.gate.enter(ctx, d.closing); err != nil {
		for _, x := range xs {
			if x.flying || x.run || x.park != nil {
				x.giveUp(err)
			}
		}
		return
	}
	ahead := true
	leave := func() {
		if ahead {
			ahead = false
			d.gate.leave()
		}
	}
	defer leave()
	d.claim(ctx, xs)
	open := false // something is left to do
	for _, x := range xs {
		open = open || x.claimed || x.run || x.park != nil
	}
	if !open {
		return
	}
	run, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer d.drop(xs) // deferred: a handler may end the goroutine
	alone := false   // without a claim, which Shutdown ends at its deadline
	for _, x := range xs {
		if x.claimed {
			x.lease.lost = cancel
			d.renewer.hold(&x.lease, x.sent)
		} else if x.run || x.park != nil {
			alone = true
		}
	}
	if alone {
		defer context.AfterFunc(d.ctx, func() { cancel(ErrClosed) })()
	}
	d.handle(ctx, run, leave, xs, h)
	leave()
	// What needs no dead letter is recorded before one is waited for.
	d.record(xs, func(x *delivery) bool { return x.park == nil })
	if d.bury(run, xs) {
		d.record(xs, func(x *delivery) bool { return x.park != nil })
	}
}

// drop lets the claims of xs lapse that are held still, and reports the lost.
func (d *Deduplicator) drop(xs []*delivery) {
	for _, x := range xs {
		if x.claimed && errors.Is(d.renewer.drop(&x.lease), ErrLeaseLost) {
			d.observe(d.o.Hooks.LeaseLost, x)
		}
	}
}

// observe calls a hook. A hook that panics is no reason to lose a message.
func (d *Deduplicator) observe(hook func(Event), x *delivery) {
	if hook == nil {
		return
	}
	defer d.survive("a hook")
	hook(Event{Scope: d.scope, Message: x.m, Result: x.res, FirstSeen: x.rec.FirstSeen, Took: x.took, Started: x.received})
}

// survive is deferred around the callbacks that have no say in what becomes of a
// message.
func (d *Deduplicator) survive(what string) {
	if r := recover(); r != nil {
		defer func() { _ = recover() }() // the logger itself may be what panics
		d.o.Logger.Error(what+" panicked", "err", panicError(r))
	}
}
