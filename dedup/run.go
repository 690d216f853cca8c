package dedup

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/oncequeue/oncequeue/dedup/internal/admit"
	"github.com/oncequeue/oncequeue/dedup/internal/renew"
)

// runner is the step that calls the handler.
type runner struct {
	o         *Options
	closing   <-chan struct{} // closed by Shutdown
	admission *admit.Admission
	renewer   *renew.Renewer
	flights   *flights
	concluder concluder
	recorder  *recorder
	teller    *teller
	onLost    func(x *delivery, hung bool) // lost
}

// handle runs the handler for those of p that are to run, which share a run, and
// decides how their claims end. It reports whether they were turned back.
func (d *runner) handle(p *pass) (again bool) {
	r := &p.runs[0]
	ms, running := r.running(p.xs)
	switch {
	case p.always:
		running = p.parks(running)
	case len(ms) == 0:
		return false
	}
	err := d.admission.Start(&r.claims, d.closing, &p.call.ticket)
	if errors.Is(err, admit.ErrTurnedBack) {
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
func (r *run) running(xs []*delivery) (ms []*Message, leases []*renew.Lease) {
	if len(xs) == 1 {
		ms = r.few[:0]
	} else {
		ms = make([]*Message, 0, len(xs))
	}
	leases = make([]*renew.Lease, 0, len(xs))
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
func (d *runner) run(r *run, xs []*delivery, ms []*Message, running []*renew.Lease) error {
	start := time.Now()
	var until time.Time
	if d.o.HandlerTimeout > 0 {
		until = start.Add(d.o.HandlerTimeout)
	}
	switch why := r.claims.cause(time.Time{}); {
	case isClosed(d.closing):
		return ErrClosed
	case !d.renewer.Begin(start, until, running...):
		return ErrLeaseLost
	case why != nil:
		return why
	}
	others := refused(xs)
	if len(others) > 0 {
		d.renewer.Limit(until, others...)
	}
	r.handler.expire(until)
	defer func() {
		if r.hung { // also where a handler ends its goroutine
			d.teller.hung(-1)
		}
	}()
	answers := r.handle(ms)
	now := time.Now()
	cause := r.handler.cause(now)
	r.handler.end(nil)
	took := max(now.Sub(start), 1)
	r.call.ticket.Ran(took)
	if d.o.HandlerTimeout > 0 {
		d.renewer.Lift(running...)
		d.renewer.Lift(others...)
	}
	for _, x := range xs {
		if x.run {
			x.took = took
			d.concluder.conclude(x, answers[0], r.claims.parent, cause)
			answers = answers[1:]
		}
	}
	return nil
}

// refused returns the leases of those of xs that are claimed and do not run: a policy
// refuses them, or they are to be parked. A handler that hangs must not keep their keys.
func refused(xs []*delivery) (leases []*renew.Lease) {
	if len(xs) == 1 {
		return nil // it runs
	}
	for _, x := range xs {
		if x.claimed && !x.run {
			leases = append(leases, x.lease)
		}
	}
	return leases
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

// lost is called when the claim of x is lost. Nobody waits for its key any more: the
// store says who may have it.
func (d *runner) lost(x *delivery, hung bool) {
	d.flights.abandon(x)
	if hung && !x.of.hung {
		x.of.hung = true
		r, id, at := x.of, x.id, x.m.Position
		d.renewer.Report(func() { d.teller.reportHung(r, id, at) })
	}
}
