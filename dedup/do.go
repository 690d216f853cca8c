package dedup

import (
	"context"

	"github.com/oncequeue/oncequeue/dedup/driver"
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
// handlers call Do for the key of each other, both are Busy after a second.
func (d *Deduplicator) Do(ctx context.Context, m *Message, h Handler) Result {
	kept := &struct { // a handler's context may outlive the handler
		call call
		runs [1]run
	}{call: call{one: h}}
	one := d.memory.ones.Get().(*doing)
	x := &one.delivery
	x.m, x.call, x.res, one.xs[0] = m, &kept.call, &one.result, x
	open := d.calls.enter(ctx, x.call)
	d.teller.observe(d.o.Hooks.Started, x)
	defer d.did(one, open)
	if !open {
		x.giveUp(ErrClosed)
		return *x.res
	}
	d.processOne(&pass{call: x.call, ctx: ctx, xs: one.xs[:], runs: kept.runs[:]})
	return *x.res
}

// did ends a Do, also one that a handler ends with its goroutine.
func (d *Deduplicator) did(one *doing, open bool) {
	x := &one.delivery
	if x.id != (ID{}) {
		d.flights.end(x)
	}
	d.teller.decided(x)
	if open {
		d.calls.exit(x.call)
	}
	if !d.renewer.Remembers() { // and nobody else does
		*one = doing{}
		d.memory.ones.Put(one)
	}
}

// DoBatch is [Deduplicator.Do] for several messages at once. It claims all their keys in
// one store operation, calls h once with the messages that are to run, and records their
// results in one store operation. It returns one Result for each message, in the order of
// ms. More than [driver.MaxBatch] messages are processed as several batches, one after the other.
//
// Messages with the same key and payload get the Result of the first one. A message waits
// until the rest of the batch is finished if its key is being processed elsewhere in this
// process, or occurs earlier in the batch with another payload. It may then take a further
// call of h.
func (d *Deduplicator) DoBatch(ctx context.Context, ms []*Message, h BatchHandler) []Result {
	results := make([]Result, len(ms))
	for at := 0; at < len(ms); at += driver.MaxBatch {
		end := min(at+driver.MaxBatch, len(ms))
		d.doBatch(ctx, ms[at:end], results[at:end], &call{many: h}, (*Deduplicator).processAll)
	}
	return results
}

// doBatch is the call, which has a batch handler, or a handler for each. process takes
// its steps.
func (d *Deduplicator) doBatch(ctx context.Context, ms []*Message, results []Result, this *call, process func(*Deduplicator, context.Context, []delivery, *call)) {
	slab := d.memory.slab(len(ms))
	open := d.calls.enter(ctx, this)
	if open {
		defer d.calls.exit(this)
	}
	for i, m := range ms {
		x := &slab[i]
		x.m, x.call, x.res = m, this, &results[i]
		d.teller.observe(d.o.Hooks.Started, x)
	}
	defer d.didAll(slab)
	if !open {
		for i := range slab {
			slab[i].giveUp(ErrClosed)
		}
		return
	}
	process(d, ctx, slab, this)
}

// didAll ends a batch, also one that a handler ends with its goroutine.
func (d *Deduplicator) didAll(slab []delivery) {
	for i := range slab {
		x := &slab[i]
		if x.flying {
			d.flights.end(x)
		}
		d.teller.decided(x)
	}
	if !d.renewer.Remembers() { // and nobody else does
		clear(slab)
		d.memory.slabs.Put(&slab)
	}
}
