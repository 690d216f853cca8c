package dedup

import (
	"context"
	"slices"
	"time"

	"github.com/oncequeue/oncequeue/dedup/internal/renew"
)

// Every message takes the same steps, whether it came alone or in a batch:
//
//	step      what it does                                        file             may decide
//	identify  derives the key and the fingerprint                 identify.go      Unkeyed
//	wait      for another delivery of the key in this process     wait.go          Busy, Conflict
//	admit     waits until the handler will probably begin soon    internal/admit   Unavailable
//	claim     claims the key in the store, and judges its answer  claim.go         Duplicate, AlreadyParked, Busy, Conflict, Stale, Ambiguous
//	run       calls the handler                                   run.go, each.go
//	conclude  says from its answer how the claim is to end        conclude.go      Processed, Failed, Uncertain
//	record    ends the claim in the store, after dead letters     record.go, bury.go Parked
//	tell      hooks and log                                       tell.go, notes.go
//
// This file calls them from identify to record; run calls conclude, and do.go calls tell.
// A message that was decided takes no further step but tell, unless its policy is to
// process or to park it: then it goes on, with its Outcome as the reason. A message
// without a key goes on in the same way. A failed message is not tried again here: its
// claim is released, and its transport delivers it again.

// processOne takes the steps up to record for one message. A duplicate that waited asks
// the store: only in a batch is it told the answer of the delivery that it waited for.
func (d *Deduplicator) processOne(p *pass) {
	x := p.xs[0]
	if d.identifier.identify(x) {
		if err := d.flights.startBy(p.ctx, d.calls.closing, x, x.call.received.Add(d.o.patience())); err != nil {
			x.giveUp(err)
			return
		}
	}
	d.process(p)
}

// processAll takes the steps up to record for the messages of a batch. Those that
// wait do so without a key in hand, when the others are done.
func (d *Deduplicator) processAll(ctx context.Context, slab []delivery, of *call) {
	first, later := d.flights.start(d.identifyAll(slab))
	defer func() {
		if len(later) > 0 { // a panic left them there, as what flies
			d.flights.leave(later)
		}
	}()
	d.fly(ctx, first)
	for deadline := time.Now().Add(d.o.patience()); len(later) > 0; {
		if of.one != nil && halted(slab) {
			for _, x := range d.flights.leave(later) {
				x.giveUp(errNotStarted)
			}
			break
		}
		var free []*delivery
		free, later = d.await(ctx, later, deadline)
		d.fly(ctx, free)
	}
	share(slab)
}

// processRound is processAll without a wait for messages whose keys are in work.
func (d *Deduplicator) processRound(ctx context.Context, slab []delivery, of *call, spare func([]*delivery, error)) {
	free, later := d.flights.start(d.identifyAll(slab))
	defer func() {
		for _, x := range d.flights.leave(later) {
			x.giveUp(ErrBusy)
		}
		share(slab)
	}()
	defer d.flights.end(free...)
	d.process(&pass{call: of, ctx: ctx, xs: free, always: true, spare: spare})
}

func (d *Deduplicator) identifyAll(slab []delivery) (xs []*delivery) {
	xs = make([]*delivery, len(slab))
	for i := range slab {
		xs[i] = &slab[i]
		d.identifier.identify(xs[i])
	}
	return xs
}

// share gives deliveries the result of their leader, or of the delivery that they awaited.
func share(slab []delivery) {
	for i := range slab {
		x := &slab[i]
		switch {
		case x.leader != nil:
			x.hear(x.leader.say())
		case x.answer != nil:
			x.hear(*x.answer)
		}
	}
}

// await puts those of later in flight whose keys are free, and waits until the
// deadline for one that is. It returns them and the rest, which are to be asked for
// again when the first have ended. A batch never holds a key while it waits: two batches
// could wait for each other.
func (d *Deduplicator) await(ctx context.Context, later []*delivery, deadline time.Time) (free, rest []*delivery) {
	if free, rest = d.flights.start(later); len(free) > 0 || len(rest) == 0 {
		return free, rest
	}
	if err := d.flights.startBy(ctx, d.calls.closing, rest[0], deadline); err != nil {
		for _, x := range d.flights.leave(rest) {
			x.giveUp(err)
		}
		return nil, nil
	}
	return d.flights.start(rest)
}

// fly processes xs and takes them out of flight.
func (d *Deduplicator) fly(ctx context.Context, xs []*delivery) {
	if len(xs) == 0 {
		return
	}
	defer d.flights.end(xs...)
	d.process(&pass{call: xs[0].call, ctx: ctx, xs: xs})
}

// process takes the steps from admit to record. It takes them again for the messages that
// admission turned back because handlers have turned slow; their claims were released.
func (d *Deduplicator) process(p *pass) {
	p.call.prepare(len(p.xs))
	for d.try(p) {
		var xs []*delivery
		for _, x := range p.xs {
			if !x.run && (!p.always || x.park == nil) { // the others are done
				continue
			}
			xs = append(xs, x)
			claimed := x.claimed
			d.flights.again(x)
			if x.park != nil && claimed { // the next claim says whether it is to be parked
				x.park, x.res.Outcome, x.res.Err = nil, 0, nil
			}
		}
		p.xs, p.runs = xs, nil
	}
}

// try reports whether the deliveries that are to run were turned back.
func (d *Deduplicator) try(p *pass) (again bool) {
	if !p.always && !slices.ContainsFunc(p.xs, (*delivery).undecided) {
		return false
	}
	if err := d.admission.Enter(p.ctx, d.calls.closing, &p.call.ticket); err != nil {
		for _, x := range p.xs {
			if x.undecided() {
				x.giveUp(err)
			}
		}
		return false
	}
	defer d.admission.Leave(&p.call.ticket)
	sent := d.claimer.claim(p.ctx, p.xs)
	if !p.always && !slices.ContainsFunc(p.xs, func(x *delivery) bool { return x.claimed || x.run || x.park != nil }) {
		return false
	}
	held, free := p.begin(d.runner.onLost, make([]*renew.Lease, 0, len(p.xs)))
	defer p.end()
	defer d.recorder.drop(p.xs, held) // deferred: a handler may end the goroutine
	d.renewer.Hold(sent, held...)
	if free || p.always {
		defer endAt(d.ctx, p.runs)()
	}
	if len(p.runs) > 1 {
		again = d.runner.handleEach(p)
	} else {
		again = d.runner.handle(p)
	}
	d.admission.Leave(&p.call.ticket)
	switch {
	case again && p.always: // no dead letter before the handler
		d.recorder.record(p.xs, func(*delivery) bool { return true })
		return true
	case p.always:
		p.spare(p.xs, p.why(d.calls.closing))
	}
	d.recorder.finish(p.xs)
	return again
}
