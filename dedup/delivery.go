package dedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// delivery is one message on its way through: key, claim, handler, record.
type delivery struct {
	m           *Message
	call        *call
	res         *Result
	id          ID // zero: without a key
	fingerprint Fingerprint

	leader  *delivery   // earlier in the call, with the same key and payload
	flying  bool        // in flights
	granted atomic.Bool // the store gave it the claim: others can conflict with it
	watched atomic.Bool // another waits for its key

	// Under the mutex of flights.
	ended   chan struct{} // closed when those who wait for its key shall look again; nil: nobody waits
	awaits  *delivery     // of the same key, in flight; nil: not known, or it has ended
	awaited []*delivery   // by these
	place   int           // in awaited of the one that it awaits
	answer  *answer       // from the one that it awaited, if the store need not be asked

	claimed   bool // the claim is ours
	over      bool // nothing is left to do
	run       bool // the handler is to run
	of        *run
	lease     *lease    // of the claim
	own       lease     // the first one
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

// call is one call of Do, DoBatch or DoEach, with a handler or a batch handler.
type call struct {
	d        *Deduplicator
	received time.Time
	parent   *run // in whose handler it was made; nil: none
	one      Handler
	many     BatchHandler
	ticket   ticket
	over     bool // under the Deduplicator's mutex
}

// inside reports whether c was made in a handler of other, or in one further in.
func (c *call) inside(other *call) bool {
	for r := c.parent; r != nil; r = r.call.parent {
		if r.call == other {
			return true
		}
	}
	return false
}

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
func (x *delivery) hear(a answer) {
	*x.res, x.firstSeen = a.result, a.firstSeen
	x.res.Value = bytes.Clone(x.res.Value) // others have it too
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
	err = finite(err)
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

// conflict decides x, whose key is recorded or held with another payload.
func (d *Deduplicator) conflict(x *delivery, first Position) {
	x.res.First = first
	x.end(Conflict, fmt.Errorf("%w, at %v", ErrConflict, first))
	d.decide(x, d.o.OnConflict, x.res.Err)
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

// pass takes deliveries, each in flight here or decided without a claim, from the
// claim to the record. The handler is called once for all that are to run, or in a
// call with a Handler once for each.
type pass struct {
	call *call
	ctx  context.Context // the caller's
	xs   []*delivery
	runs []run // used up by the first try
}

func (d *Deduplicator) process(p *pass) {
	t := &p.call.ticket
	t.claims = 1
	if p.call.one != nil {
		t.claims = len(p.xs)
	}
	if r := p.call.parent; r != nil {
		t.parent = &r.call.ticket
	}
	for d.try(p) {
		var xs []*delivery
		for _, x := range p.xs {
			if !x.run {
				continue
			}
			xs = append(xs, x)
			if x.claimed {
				x.claimed, x.over, x.run, x.lease = false, false, false, new(lease)
				x.m.Claim = Claim{ID: x.id, Key: x.m.Claim.Key}
			}
		}
		p.xs, p.runs = xs, nil
	}
}

// try reports whether the deliveries that are to run were turned back.
func (d *Deduplicator) try(p *pass) (again bool) {
	open := func(x *delivery) bool { return x.res.Outcome == 0 || x.run || x.park != nil }
	if !slices.ContainsFunc(p.xs, open) {
		return false
	}
	if err := d.admission.enter(p.ctx, d.closing, &p.call.ticket); err != nil {
		for _, x := range p.xs {
			if open(x) {
				x.giveUp(err)
			}
		}
		return false
	}
	defer d.admission.leave(&p.call.ticket)
	sent := d.claim(p.ctx, p.xs)
	if !slices.ContainsFunc(p.xs, func(x *delivery) bool { return x.claimed || x.run || x.park != nil }) {
		return false
	}
	n := p.call.ticket.claims
	if p.runs == nil {
		p.runs = make([]run, n)
	}
	runs := p.runs
	for i := range runs {
		runs[i].init(p)
	}
	defer func() {
		for i := range runs {
			runs[i].end()
		}
	}()
	held := make([]*lease, 0, len(p.xs))
	free := false // to run without a claim, the loss of which would end it
	for i, x := range p.xs {
		x.of = &runs[min(i, n-1)]
		if x.claimed {
			held = append(held, x.lease)
		} else if x.run || x.park != nil {
			free = true
		}
	}
	defer d.drop(p.xs, held) // deferred: a handler may end the goroutine
	d.renewer.hold(sent, held...)
	if free {
		defer context.AfterFunc(d.ctx, func() {
			for i := range runs {
				runs[i].lose(ErrClosed)
			}
		})()
	}
	if n > 1 {
		again = d.handleEach(p)
	} else {
		again = d.handle(p)
	}
	d.admission.leave(&p.call.ticket)
	d.finish(p.xs)
	return again
}

// lost is called when the claim of x is lost. Nobody waits for its key any more: the
// store says who may have it.
func (x *delivery) lost(why error, hung bool) {
	x.of.lose(why)
	d := x.call.d
	d.flights.abandon(x)
	if hung && !x.of.hung {
		x.of.hung = true
		r, id, at := x.of, x.id, x.m.Position
		d.renewer.reports.Go(func() { d.reportHung(r, id, at) })
	}
}

// drop lets the claims of xs lapse that are held still, and reports the lost.
func (d *Deduplicator) drop(xs []*delivery, held []*lease) {
	if slices.ContainsFunc(xs, func(x *delivery) bool { return x.claimed && !x.over }) {
		d.renewer.drop(held...)
	} // else it was done when they were recorded
	for _, x := range xs {
		if x.claimed && errors.Is(x.lease.fate, ErrLeaseLost) {
			d.observe(d.o.Hooks.LeaseLost, x)
		}
	}
}

// observe calls a hook.
func (d *Deduplicator) observe(hook func(Event), x *delivery) {
	if hook == nil {
		return
	}
	d.callHook("a hook", func() {
		hook(Event{Scope: d.scope, Message: x.m, Result: *x.res, FirstSeen: x.firstSeen, Took: x.took, Started: x.call.received})
	})
}

// survive is deferred around the callbacks that have no say in what becomes of a
// message.
func (d *Deduplicator) survive(what string) {
	if r := recover(); r != nil {
		defer func() { _ = recover() }() // the logger itself may be what panics
		d.o.Logger.Error(what+" panicked", "err", panicError(r))
	}
}
