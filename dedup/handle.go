package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// handle runs the handler for those of xs that are to run, and decides how
// their claims end.
func (d *Deduplicator) handle(caller, ctx context.Context, cancel context.CancelCauseFunc, xs []*delivery, h BatchHandler) {
	var ms []*Message
	for _, x := range xs {
		if x.run {
			ms = append(ms, x.m)
		}
	}
	if len(ms) == 0 {
		return
	}
	if err := d.slot(ctx); err != nil {
		for _, x := range xs {
			if x.run {
				x.run = false
				x.end(Unavailable, err)
				if errors.Is(err, ErrLeaseLost) {
					x.res.Outcome = Busy
				}
				x.res.RetryAfter = pause(100 * time.Millisecond)
			}
		}
		return
	}
	if d.o.HandlerTimeout > 0 {
		timer := time.AfterFunc(d.o.HandlerTimeout, func() {
			d.drop(xs)
			cancel(ErrTimeout)
		})
		defer timer.Stop()
	}
	start := time.Now()
	answers := d.call(ctx, h, ms)
	took := max(time.Since(start), 1) // 0 would say that it did not run
	cause := context.Cause(ctx)
	revoked := caller.Err() != nil || d.ctx.Err() != nil
	for _, x := range xs {
		if x.run {
			x.took = took
			d.conclude(x, answers[0], cause, revoked)
			answers = answers[1:]
		}
	}
}

// slot waits for the right to run a handler.
func (d *Deduplicator) slot(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
		<-d.slots
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
// the handler's context had ended, or nil; revoked: because the caller's had, or
// Shutdown gave up waiting.
func (d *Deduplicator) conclude(x *delivery, a Answer, cause error, revoked bool) {
	if !x.claimed { // OnUnkeyed is Process
		if a.Err == nil {
			x.res.Value, x.res.settled = a.Result, true
		} else {
			x.end(Failed, a.Err)
			x.res.RetryAfter = d.o.Backoff(1)
		}
		return
	}
	attempt := x.m.Claim.Attempt
	if a.Err == nil {
		x.end(Processed, nil)
		x.op = d.settling(x, OpComplete)
		if len(a.Result) > d.o.MaxResult {
			x.op.Omitted = true
		} else {
			x.op.Result = a.Result
		}
		return
	}
	s := steering(a.Err)
	err := a.Err
	if cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	x.end(Failed, err)
	x.op.Ambiguous = s.maybeDone || cause != nil
	// A run that was cut short from outside neither failed nor died.
	x.op.Uncounted = s.transient || revoked
	x.res.RetryAfter = s.after
	if !s.hasAfter {
		x.res.RetryAfter = d.o.Backoff(attempt)
	}
	switch {
	case errors.Is(cause, ErrLeaseLost): // another may hold the key: not ours to park
	case s.permanent && d.o.DeadLetter == nil:
		x.res.Halt = true
	case s.permanent:
		x.park, x.parkedAs = err, Parked
	case !x.op.Uncounted && d.o.MaxAttempts > 0 && attempt >= d.o.MaxAttempts:
		x.park, x.parkedAs = fmt.Errorf("%w: run %d of %d: %w", ErrAttempts, attempt, d.o.MaxAttempts, err), Parked
	}
}

func (d *Deduplicator) settling(x *delivery, kind OpKind) Op {
	return Op{
		Kind: kind, ID: x.id, Token: x.rec.Token, TTL: d.o.TTL,
		Fingerprint: x.fingerprint, Position: x.m.Position,
	}
}
