package dedup

import (
	"bytes"
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
// one second, or Options.Lease if that is shorter. After that the Outcome is [Busy].
func (d *Deduplicator) Do(ctx context.Context, m *Message, h Handler) Result {
	one := &struct {
		delivery
		call   call
		result Result
	}{call: call{received: time.Now()}}
	x := &one.delivery
	x.m, x.call, x.res = m, &one.call, &one.result
	open := d.enter()
	if open {
		defer d.exit()
	}
	d.observe(d.o.Hooks.Started, x)
	defer d.decided(x)
	if !open {
		x.giveUp(ErrClosed)
		return *x.res
	}
	if d.identify(x) {
		if err := d.flights.startBy(ctx, d.closing, x, time.Now().Add(d.patience())); err != nil {
			x.giveUp(err)
			return *x.res
		}
		defer d.flights.end(x)
	}
	d.process(ctx, []*delivery{x}, single(h), false)
	return *x.res
}

// single makes a BatchHandler for one message of h.
func single(h Handler) BatchHandler {
	return func(ctx context.Context, ms []*Message) []Answer {
		result, err := h(ctx, ms[0])
		return []Answer{{result, err}}
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
		d.doBatch(ctx, ms[at:end], results[at:end], h, false)
	}
	return results
}

// doBatch calls h once for all that are to run together, or once for each.
func (d *Deduplicator) doBatch(ctx context.Context, ms []*Message, results []Result, h BatchHandler, each bool) {
	slab := d.slab(len(ms))
	this := &call{received: time.Now()}
	open := d.enter()
	if open {
		defer d.exit()
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
	d.fly(ctx, first, h, each)
	for deadline := time.Now().Add(d.patience()); len(later) > 0; {
		if each && slices.ContainsFunc(results, func(r Result) bool { return r.Halt }) {
			for _, x := range d.flights.leave(later) {
				x.giveUp(errNotStarted)
			}
			break
		}
		var free []*delivery
		free, later = d.await(ctx, later, deadline)
		d.fly(ctx, free, h, each)
	}
	var told *answer
	var value []byte
	for i := range slab {
		x := &slab[i]
		switch {
		case x.leader != nil:
			x.hear(x.leader.say())
		case x.answer != nil:
			if x.answer != told { // other callers may have it too
				told, value = x.answer, bytes.Clone(x.answer.result.Value)
			}
			x.hear(*told)
			x.res.Value = value
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
func (d *Deduplicator) fly(ctx context.Context, xs []*delivery, h BatchHandler, each bool) {
	if len(xs) == 0 {
		return
	}
	defer d.flights.end(xs...)
	d.process(ctx, xs, h, each)
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
