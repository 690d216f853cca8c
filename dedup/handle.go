package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// handle runs the handler for those of xs that are to run, which share a run, and
// decides how their claims end. caller is the context of Do.
func (d *Deduplicator) handle(caller context.Context, leave func(), xs []*delivery, h BatchHandler) {
	ms, running := running(xs)
	if len(ms) == 0 {
		return
	}
	claims := &xs[0].lease.run.claims
	if err := d.slot(claims); err != nil {
		giveUp(xs, err)
		return
	}
	defer func() { <-d.slots }()
	if err := d.ready(claims, running); err != nil {
		giveUp(xs, err)
		return
	}
	leave()
	d.run(caller, xs, ms, running, h)
}

// running returns those of xs that are to run, and their leases.
func running(xs []*delivery) (ms []*Message, leases []*lease) {
	ms, leases = make([]*Message, 0, len(xs)), make([]*lease, 0, len(xs))
	for _, x := range xs {
		if !x.run {
			continue
		}
		ms = append(ms, x.m)
		if x.claimed {
			leases = append(leases, &x.lease)
		}
	}
	return ms, leases
}

// giveUp gives up those of xs that were to run.
func giveUp(xs []*delivery, err error) {
	for _, x := range xs {
		if x.run {
			x.giveUp(err)
		}
	}
}

// run calls h for those of xs that are to run: ms, under their leases.
func (d *Deduplicator) run(caller context.Context, xs []*delivery, ms []*Message, running []*lease, h BatchHandler) {
	r := xs[0].lease.run
	start := time.Now()
	if d.o.HandlerTimeout > 0 {
		until := start.Add(d.o.HandlerTimeout)
		r.handler.expire(until)
		d.renewer.limit(until, running...)
	}
	answers := d.call(&r.handler, h, ms)
	now := time.Now()
	cause := r.handler.cause(now)
	r.handler.end(nil)
	took := max(now.Sub(start), 1)
	d.gate.ran(took)
	if d.o.HandlerTimeout > 0 {
		d.renewer.limit(time.Time{}, running...)
	}
	for _, x := range xs {
		if x.run {
			x.took = took
			d.conclude(x, answers[0], caller, cause)
			answers = answers[1:]
		}
	}
}

// slot waits for the right to run handlers, one at a time, which is to be given back.
func (d *Deduplicator) slot(ctx *lazyContext) error {
	if why := ctx.cause(time.Time{}); why != nil {
		return why
	}
	select {
	case d.slots <- struct{}{}:
	default: // all are taken
		select {
		case d.slots <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.closing:
			return ErrClosed
		}
	}
	return nil
}

// ready says whether a handler may start now, under claims that still stand.
func (d *Deduplicator) ready(ctx *lazyContext, claims []*lease) error {
	switch {
	case isClosed(d.closing):
		return ErrClosed
	case !d.renewer.alive(claims...):
		return ErrLeaseLost
	}
	return ctx.cause(time.Time{})
}

// call runs h. A panic becomes an error of every message.
func (d *Deduplicator) call(ctx context.Context, h BatchHandler, ms []*Message) (answers []Answer) {
	n := len(ms)
	all := func(err error) []Answer {
		out := make([]Answer, n)
		for i := range out {
			out[i].Err = MaybeDone(err)
		}
		return out
	}
	defer func() {
		if r := recover(); r != nil {
			answers = all(panicError(r))
		}
	}()
	answers = h(ctx, ms)
	if len(answers) != n {
		answers = all(fmt.Errorf("the batch handler gave %d answers to %d messages: it owes one for each, in order", len(answers), n))
	}
	return answers
}

// conclude decides how the claim of x ends after its handler did. cause is why
// the handler's context had ended, or nil.
func (d *Deduplicator) conclude(x *delivery, a Answer, caller context.Context, cause error) {
	defer func() {
		if r := recover(); r != nil { // a method of the user's error, or Backoff
			x.park = nil
			x.end(Failed, panicError(r))
			x.ending.ambiguous, x.ending.uncounted = true, false
			x.res.RetryAfter = pause(time.Second)
		}
	}()
	if a.Err == nil {
		if !x.claimed { // OnUnkeyed is Process: Outcome and Err say so
			x.res.Value, x.res.settled = a.Result, true
			return
		}
		x.end(Processed, nil)
		x.ending = ending{kind: OpComplete, result: a.Result}
		if len(a.Result) > d.o.MaxResult {
			x.ending = ending{kind: OpComplete, omitted: true}
		}
		return
	}
	s := steering(a.Err)
	err := a.Err
	if cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	x.end(Failed, err)
	attempt := max(x.m.Claim.Attempt, 1)
	x.res.RetryAfter = s.after
	if !s.hasAfter {
		x.res.RetryAfter = d.o.Backoff(attempt)
	}
	x.ending.ambiguous = s.maybeDone || cause != nil
	x.ending.uncounted = s.transient || d.cutShort(caller) && !errors.Is(err, ErrPanic)
	switch {
	case s.permanent && d.o.DeadLetter == nil:
		x.res.Halt = true
	case s.permanent:
		x.park, x.parkedAs = err, Parked
	case x.claimed && !x.ending.uncounted && d.o.MaxAttempts > 0 && attempt >= d.o.MaxAttempts:
		x.park, x.parkedAs = fmt.Errorf("%w: run %d of %d: %w", ErrAttempts, attempt, d.o.MaxAttempts, err), Parked
	}
}

// cutShort reports whether a run was ended from outside: it neither failed nor
// died. A deadline of the caller is a handler that took too long.
func (d *Deduplicator) cutShort(caller context.Context) bool {
	return d.ctx.Err() != nil || errors.Is(caller.Err(), context.Canceled)
}
