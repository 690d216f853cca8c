package dedup

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// handle runs the handler for those of p that are to run, which share a run, and
// decides how their claims end. It reports whether they were turned back.
func (d *Deduplicator) handle(p *pass) (again bool) {
	r := &p.runs[0]
	ms, running := r.running(p.xs)
	if len(ms) == 0 {
		return false
	}
	err := d.admission.start(&r.claims, d.closing, &p.call.ticket)
	if errors.Is(err, errTurnedBack) {
		return true
	}
	if err == nil {
		err = d.run(r, p.xs, ms, running)
	}
	if err != nil {
		giveUp(p.xs, err)
	}
	return false
}

// running returns those of xs that are to run, and their leases.
func (r *run) running(xs []*delivery) (ms []*Message, leases []*lease) {
	if len(xs) == 1 {
		ms = r.few[:0]
	} else {
		ms = make([]*Message, 0, len(xs))
	}
	leases = make([]*lease, 0, len(xs))
	for _, x := range xs {
		if !x.run {
			continue
		}
		ms = append(ms, x.m)
		if x.claimed {
			leases = append(leases, x.lease)
		}
	}
	if r.call.one != nil && len(ms) > 0 {
		r.message = ms[0]
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

// run calls the handler for those of xs that are to run: ms, under their leases. It
// returns why it does not.
func (d *Deduplicator) run(r *run, xs []*delivery, ms []*Message, running []*lease) error {
	start := time.Now()
	var until time.Time
	if d.o.HandlerTimeout > 0 {
		until = start.Add(d.o.HandlerTimeout)
	}
	switch why := r.claims.cause(time.Time{}); {
	case isClosed(d.closing):
		return ErrClosed
	case !d.renewer.begin(start, until, running...):
		return ErrLeaseLost
	case why != nil:
		return why
	}
	r.handler.expire(until)
	answers := r.handle(ms)
	now := time.Now()
	cause := r.handler.cause(now)
	r.handler.end(nil)
	took := max(now.Sub(start), 1)
	r.call.ticket.ran(took)
	if d.o.HandlerTimeout > 0 {
		d.renewer.lift(running...)
	}
	if r.hung {
		d.hung(-1)
	}
	for _, x := range xs {
		if x.run {
			x.took = took
			d.conclude(x, answers[0], r.claims.parent, cause)
			answers = answers[1:]
		}
	}
	return nil
}

// handle calls the handler for ms. A panic becomes an error of every message. The
// stack of a handler that hangs is found by r, in the line of this function.
//
//go:noinline
func (r *run) handle(ms []*Message) (answers []Answer) {
	n := len(ms)
	all := func(err error) []Answer {
		out := make([]Answer, n)
		for i := range out {
			out[i].Err = MaybeDone(err)
		}
		return out
	}
	defer func() {
		if e := recover(); e != nil {
			answers = all(panicError(e))
		}
	}()
	if one := r.call.one; one != nil {
		r.answer[0].Result, r.answer[0].Err = one(&r.handler, ms[0])
		return r.answer[:]
	}
	answers = r.call.many(&r.handler, ms)
	runtime.KeepAlive(r) // so that the line shows it until then
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
	s, err := steering(a.Err), finite(a.Err)
	if cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	x.end(Failed, err)
	attempt := max(x.m.Claim.Attempt, 1)
	x.res.RetryAfter = s.after
	if !s.hasAfter {
		x.res.RetryAfter = max(d.o.Backoff(attempt), 0)
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
