package dedup

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Do tries once to process m and returns the [Result]. Use it where the broker can
// deliver a single message again: acknowledge if [Result.Settled] says so, else ask for
// redelivery after Result.RetryAfter. m and h must not be nil.
//
// Do sets m.Claim before h runs. It returns after h has returned and the result is
// recorded, or as soon as it is known that h does not run.
//
// When ctx ends, no handler is started any more, and the context of a running handler
// ends too. The result of a handler that has finished is still recorded. Do can outlast
// ctx while the store hangs, because callers carry out each other's store operations.
//
// A run that fails because ctx was cancelled does not count as an attempt. A run that
// outlasts a deadline of ctx counts.
//
// If the same key is being processed in this process, Do waits for that run: at most
// one second, or Options.Lease if that is shorter. After that the Outcome is [Busy]. With
// another payload it is [Conflict] at once.
//
// Inside a handler, Do with the handler's context runs in the slot of that handler. With
// the handler's own key it returns at once, as Busy with [ErrOwnKey]. A handler that passes
// on another context is not recognised: the call waits for a slot, and for itself. If two
// handlers call Do for the key of each other, one of them is Busy.
func (d *Deduplicator) Do(ctx context.Context, m *Message, h Handler) Result {
	kept := &struct { // a handler's context may outlive the handler
		call call
		runs [1]run
	}{call: call{one: h}}
	one := d.ones.Get().(*doing)
	x := &one.delivery
	x.m, x.call, x.res, one.xs[0] = m, &kept.call, &one.result, x
	open := d.enter(ctx, x.call)
	d.observe(d.o.Hooks.Started, x)
	defer d.did(one, open)
	if !open {
		x.giveUp(ErrClosed)
		return *x.res
	}
	if d.identify(x) {
		if err := d.flights.startBy(ctx, d.closing, x, x.call.received.Add(d.patience())); err != nil {
			x.giveUp(err)
			return *x.res
		}
	}
	d.process(&pass{call: x.call, ctx: ctx, xs: one.xs[:], runs: kept.runs[:]})
	return *x.res
}

// doing is the memory of one Do, which is used again.
type doing struct {
	delivery
	result Result
	xs     [1]*delivery
}

// did ends a Do, also one that a handler ends with its goroutine.
func (d *Deduplicator) did(one *doing, open bool) {
	x := &one.delivery
	if x.id != (ID{}) {
		d.flights.end(x)
	}
	d.decided(x)
	if open {
		d.exit(x.call)
	}
	if !d.renewer.remembers() { // and nobody else does
		*one = doing{}
		d.ones.Put(one)
	}
}

// DoBatch is [Deduplicator.Do] for several messages at once. It claims all their keys in
// one store operation, calls h once with the messages that are to run, and records their
// results in one store operation. It returns one Result for each message, in the order of
// ms. More than [MaxBatch] messages are processed as several batches, one after the other.
//
// Messages with the same key and payload get the Result of the first one. A message waits
// until the rest of the batch is finished if its key is being processed elsewhere in this
// process, or occurs earlier in the batch with another payload. It may then take a further
// call of h.
func (d *Deduplicator) DoBatch(ctx context.Context, ms []*Message, h BatchHandler) []Result {
	results := make([]Result, len(ms))
	for at := 0; at < len(ms); at += MaxBatch {
		end := min(at+MaxBatch, len(ms))
		d.doBatch(ctx, ms[at:end], results[at:end], call{many: h})
	}
	return results
}

// doBatch is the call, which has a batch handler, or a handler for each.
func (d *Deduplicator) doBatch(ctx context.Context, ms []*Message, results []Result, of call) {
	slab := d.slab(len(ms))
	this := &of
	open := d.enter(ctx, this)
	if open {
		defer d.exit(this)
	}
	for i, m := range ms {
		x := &slab[i]
		x.m, x.call, x.res = m, this, &results[i]
		d.observe(d.o.Hooks.Started, x)
	}
	var first, later []*delivery
	defer func() {
		if len(later) > 0 { // a panic left them there, as what flies
			d.flights.leave(later)
		}
		for i := range slab {
			x := &slab[i]
			if x.flying {
				d.flights.end(x)
			}
			d.decided(x)
		}
		if !d.renewer.remembers() { // and nobody else does
			clear(slab)
			d.slabs.Put(&slab)
		}
	}()
	if !open {
		for i := range slab {
			slab[i].giveUp(ErrClosed)
		}
		return
	}
	xs := make([]*delivery, len(ms))
	for i := range slab {
		xs[i] = &slab[i]
		d.identify(xs[i])
	}
	first, later = d.flights.start(xs)
	d.fly(ctx, first)
	for deadline := time.Now().Add(d.patience()); len(later) > 0; {
		if of.one != nil && slices.ContainsFunc(results, func(r Result) bool { return r.Halt }) {
			for _, x := range d.flights.leave(later) {
				x.giveUp(errNotStarted)
			}
			break
		}
		var free []*delivery
		free, later = d.await(ctx, later, deadline)
		d.fly(ctx, free)
	}
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

// slab returns n new deliveries.
func (d *Deduplicator) slab(n int) []delivery {
	if used, ok := d.slabs.Get().(*[]delivery); ok && cap(*used) >= n {
		return (*used)[:n]
	}
	return make([]delivery, n)
}

// await puts those of later in flight whose keys are free, and waits until the
// deadline for one that is. It returns them and the rest, which are to be asked for
// again when those have ended: who holds keys while it waits for others can wait for
// a batch that waits for it.
func (d *Deduplicator) await(ctx context.Context, later []*delivery, deadline time.Time) (free, rest []*delivery) {
	if free, rest = d.flights.start(later); len(free) > 0 || len(rest) == 0 {
		return free, rest
	}
	if err := d.flights.startBy(ctx, d.closing, rest[0], deadline); err != nil {
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

// patience is how long a delivery waits for another of its key in this process.
func (d *Deduplicator) patience() time.Duration { return min(d.o.Lease, time.Second) }

func (d *Deduplicator) decided(x *delivery) {
	if x.res.Outcome == 0 { // runtime.Goexit in the handler, or a panic on the way
		x.end(Failed, errors.New("the call ended before its result was known; its claim lapses"))
	}
	d.observe(d.o.Hooks.Decided, x)
	defer d.survive("the logger")
	d.notes.decided(x)
}
