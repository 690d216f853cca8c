package dedup

import (
	"context"
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
	op       Op      // with what it ends; Kind 0: with nothing

	res Result
}

// end decides x without a claim to give back.
func (x *delivery) end(outcome Outcome, err error) {
	x.res.Outcome, x.res.Err = outcome, err
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
	d.claim(ctx, xs)
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer d.drop(xs) // deferred: a handler may end the goroutine
	for _, x := range xs {
		if x.claimed {
			x.lease.lost = func(why error) { d.lost(x, cancel, why) }
			d.renewer.hold(&x.lease, x.sent)
		}
	}
	d.handle(ctx, runCtx, cancel, xs, h)
	d.bury(ctx, xs)
	d.record(xs)
}

// drop lets the claims of xs lapse.
func (d *Deduplicator) drop(xs []*delivery) {
	for _, x := range xs {
		d.renewer.drop(&x.lease)
	}
}

// lost is called by the renewer.
func (d *Deduplicator) lost(x *delivery, cancel context.CancelCauseFunc, why error) {
	if x.lease.closing.Load() {
		return // the record is on its way, and the store will judge it
	}
	cancel(why)
	if why == ErrLeaseLost && d.o.Hooks.LeaseLost != nil { //nolint:errorlint // exactly that
		d.o.Hooks.LeaseLost(Event{Scope: d.scope, Message: x.m, FirstSeen: x.rec.FirstSeen, Started: x.received})
	}
}

func (d *Deduplicator) event(x *delivery) Event {
	return Event{Scope: d.scope, Message: x.m, Result: x.res, FirstSeen: x.rec.FirstSeen, Took: x.took, Started: x.received}
}
