package dedup

import (
	"context"
	"time"
)

// Do tries once to process m, and says what became of it. Use it where the
// broker can deliver a single message again: acknowledge when Result.Settled,
// else ask for redelivery after Result.RetryAfter.
//
// Do returns when the handler has returned and its result is recorded. Once
// ctx ends nothing new is started and a running handler's context is
// cancelled, but a finished handler's result is still recorded.
//
// A delivery of a key that is being processed in this process waits for that,
// at most the shorter of Lease and one second, before it is Busy.
func (d *Deduplicator) Do(ctx context.Context, m *Message, h Handler) Result {
	x := &delivery{m: m, received: time.Now()}
	open := d.enter()
	if open {
		defer d.exit()
	}
	d.started(x)
	defer d.decided(x)
	if !open {
		x.end(Unavailable, ErrClosed)
		return x.res
	}
	if d.identify(x) {
		if err := d.flights.startBy(ctx, x, time.Now().Add(d.patience())); err != nil {
			d.refused(x, err)
			return x.res
		}
		defer d.flights.end(x)
	}
	d.process(ctx, []*delivery{x}, func(ctx context.Context, ms []*Message) []Answer {
		result, err := h(ctx, ms[0])
		return []Answer{{result, err}}
	})
	return x.res
}

// DoBatch is Do for several messages at once: one claim of all their keys, one
// call of h with those that are to run, one record. It returns a Result for
// each message, in order.
//
// Messages of one key and payload share the fate of the first of them. A key
// that is being processed elsewhere in this process is waited for only after
// the others are settled.
func (d *Deduplicator) DoBatch(ctx context.Context, ms []*Message, h BatchHandler) []Result {
	results := make([]Result, 0, len(ms))
	for len(ms) > MaxBatch {
		results = append(results, d.doBatch(ctx, ms[:MaxBatch], h)...)
		ms = ms[MaxBatch:]
	}
	return append(results, d.doBatch(ctx, ms, h)...)
}

func (d *Deduplicator) doBatch(ctx context.Context, ms []*Message, h BatchHandler) []Result {
	if len(ms) == 0 {
		return nil
	}
	slab := make([]delivery, len(ms))
	results := make([]Result, len(ms))
	open := d.enter()
	if open {
		defer d.exit()
	}
	now := time.Now()
	for i, m := range ms {
		x := &slab[i]
		x.m, x.received, x.batch = m, now, &slab[0]
		d.started(x)
	}
	defer func() {
		for i := range slab {
			d.decided(&slab[i])
		}
	}()
	first := make([]*delivery, 0, len(ms)) // those that need wait for nobody
	var later []*delivery                  // those that do
	for i := range slab {
		x := &slab[i]
		if !open {
			x.end(Unavailable, ErrClosed)
			continue
		}
		if !d.identify(x) {
			first = append(first, x)
			continue
		}
		switch other, _ := d.flights.start(x); {
		case other == nil:
			first = append(first, x)
		case other.batch == x.batch && other.fingerprint == x.fingerprint:
			x.leader = other
		default:
			later = append(later, x)
		}
	}
	d.fly(ctx, first, h)
	if len(later) > 0 {
		deadline := time.Now().Add(d.patience())
		second := later[:0]
		for _, x := range later {
			if err := d.flights.startBy(ctx, x, deadline); err != nil {
				d.refused(x, err)
			} else {
				second = append(second, x)
				deadline = time.Now() // what has started here must not wait for others
			}
		}
		d.fly(ctx, second, h)
	}
	for i := range slab {
		x := &slab[i]
		if x.leader != nil {
			x.res, x.rec = x.leader.res, x.leader.rec
			if x.res.Outcome == Processed {
				x.res.Outcome = Duplicate
			}
		}
		results[i] = x.res
	}
	return results
}

// fly processes xs and takes them out of flight.
func (d *Deduplicator) fly(ctx context.Context, xs []*delivery, h BatchHandler) {
	defer func() {
		for _, x := range xs {
			d.flights.end(x)
		}
	}()
	d.process(ctx, xs, h)
}

// patience is how long a delivery waits for another of its key in this process.
func (d *Deduplicator) patience() time.Duration { return min(d.o.Lease, time.Second) }

// refused decides a delivery that did not get into flight.
func (d *Deduplicator) refused(x *delivery, err error) {
	x.end(Unavailable, err)
	x.res.RetryAfter = pause(100 * time.Millisecond)
	if err == ErrBusy { //nolint:errorlint // exactly that
		x.res.Outcome = Busy
	}
}

func (d *Deduplicator) started(x *delivery) {
	if d.o.Hooks.Started != nil {
		d.o.Hooks.Started(d.event(x))
	}
}

func (d *Deduplicator) decided(x *delivery) {
	if d.o.Hooks.Decided != nil {
		d.o.Hooks.Decided(d.event(x))
	}
	d.notes.decided(x)
}
