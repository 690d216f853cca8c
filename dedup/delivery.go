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
	call        *call
	res         *Result
	id          ID // zero: without a key
	fingerprint Fingerprint

	ended  chan struct{} // closed when it leaves flights; nil: nobody waits
	leader *delivery     // earlier in the call, with the same key and payload
	flying bool          // in flights

	// Under the mutex of flights.
	awaits  *delivery   // of the same key, in flight; nil: not known, or it has ended
	awaited []*delivery // by these
	place   int         // in awaited of the one that it awaits
	answer  *answer     // from the one that it awaited, if the store need not be asked

	claimed   bool // the claim is ours
	over      bool // nothing is left to do
	run       bool // the handler is to run
	lease     lease
	firstSeen time.Time // as the claim found it
	took      time.Duration
	known     time.Time // of res: what the store said then, or later

	// How the claim ends, once known.
	parkedAs Outcome // what a confirmed dead letter makes of it
	park     error   // not nil: by a dead letter, for this reason
	ending   ending
}

// answer is what one delivery of a key says to others.
type answer struct {
	result    Result
	firstSeen time.Time
}

// call is one call of Do, DoBatch or DoEach.
type call struct{ received time.Time }

// ending is the operation that ends a claim.
type ending struct {
	kind                          OpKind
	omitted, ambiguous, uncounted bool
	result                        []byte
}

// settlement returns the operation that ends the claim of x.
func (d *Deduplicator) settlement(x *delivery) Op {
	op := Op{
		Kind: x.ending.kind, ID: x.id, Token: x.lease.token, TTL: d.o.TTL, Result: x.ending.result,
		Omitted: x.ending.omitted, Ambiguous: x.ending.ambiguous, Uncounted: x.ending.uncounted,
	}
	if op.Kind != OpRelease {
		op.Fingerprint, op.Tag, op.Position = x.fingerprint, d.o.tag, x.m.Position
	}
	return op
}

// say returns the answer of x, which is decided, to others of its key.
func (x *delivery) say() answer {
	a := answer{*x.res, x.firstSeen}
	switch {
	case a.result.Outcome == Processed:
		a.result.Outcome = Duplicate
	case a.result.Outcome == Parked && a.result.settled:
		a.result.Outcome = AlreadyParked
	}
	return a
}

// hear decides x by another's answer.
func (x *delivery) hear(a answer) { *x.res, x.firstSeen = a.result, a.firstSeen }

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
	if x.res.RetryAfter = pause(100 * time.Millisecond); errors.Is(err, errNotStarted) {
		x.res.RetryAfter = 0
	}
}

// identify derives the key. A message without one is decided by OnUnkeyed.
func (d *Deduplicator) identify(x *delivery) bool {
	x.m.Claim = Claim{}
	key, err := deriveKey(d.key, x.m)
	if err == nil {
		x.fingerprint, err = d.fingerprint(x.m)
	}
	if err == nil {
		x.id = d.ids.of(key)
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
// claim to the record. h is called once for all that are to run, or once for each.
func (d *Deduplicator) process(ctx context.Context, xs []*delivery, h BatchHandler, each bool) {
	calls := 1
	if each {
		calls = len(xs)
	}
	if err := d.gate.enter(ctx, d.closing, calls); err != nil {
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
			d.gate.leave(calls)
		}
	}
	defer leave()
	sent := d.claim(ctx, xs)
	open := false // something is left to do
	for _, x := range xs {
		open = open || x.claimed || x.run || x.park != nil
	}
	if !open {
		return
	}
	runs := newRuns(ctx, calls)
	defer func() {
		for i := range runs {
			runs[i].end()
		}
	}()
	held := make([]*lease, 0, len(xs))
	free := false // to run without a claim, the loss of which would end it
	for i, x := range xs {
		x.lease.run = &runs[min(i, calls-1)]
		if x.claimed {
			held = append(held, &x.lease)
		} else if x.run || x.park != nil {
			free = true
		}
	}
	defer d.drop(xs, held) // deferred: a handler may end the goroutine
	d.renewer.hold(sent, held...)
	if free {
		defer context.AfterFunc(d.ctx, func() {
			for i := range runs {
				runs[i].lose(ErrClosed)
			}
		})()
	}
	if each {
		d.handleEach(ctx, leave, xs, h)
	} else {
		d.handle(ctx, leave, xs, h)
	}
	leave()
	d.finish(xs)
}

// drop lets the claims of xs lapse that are held still, and reports the lost.
func (d *Deduplicator) drop(xs []*delivery, held []*lease) {
	d.renewer.drop(held...)
	for _, x := range xs {
		if x.claimed && errors.Is(x.lease.fate, ErrLeaseLost) {
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
	hook(Event{Scope: d.scope, Message: x.m, Result: *x.res, FirstSeen: x.firstSeen, Took: x.took, Started: x.call.received})
}

// survive is deferred around the callbacks that have no say in what becomes of a
// message.
func (d *Deduplicator) survive(what string) {
	if r := recover(); r != nil {
		defer func() { _ = recover() }() // the logger itself may be what panics
		d.o.Logger.Error(what+" panicked", "err", panicError(r))
	}
}
