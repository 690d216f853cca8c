package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// concluder is the step that decides how a claim ends after its handler did.
type concluder struct {
	o   *Options
	ctx context.Context // ends at the deadline of Shutdown
}

// conclude decides how the claim of x ends after its handler did. cause is why
// the handler's context had ended, or nil.
func (d *concluder) conclude(x *delivery, a Answer, caller context.Context, cause error) {
	defer func() {
		if r := recover(); r != nil { // a method of the user's error, or Backoff
			x.park = nil
			x.end(Failed, panicError(r))
			x.ending.ambiguous, x.ending.uncounted = true, false
			x.res.RetryAfter = pause(time.Second)
		}
	}()
	if x.back != nil {
		x.giveUp(x.back)
		x.ending.ambiguous = cause != nil && !x.clean
		return
	}
	if x.buried {
		x.end(Failed, a.Err)
		x.park, x.parkedAs = mark.Finite(a.Err), Parked
		return
	}
	if a.Err == nil {
		if !x.claimed { // OnUnkeyed is Process: Outcome and Err say so
			x.res.Value, x.res.settled = a.Result, true
			return
		}
		x.end(Processed, nil)
		x.ending = ending{kind: driver.OpComplete, result: a.Result}
		if len(a.Result) > d.o.MaxResult {
			x.ending = ending{kind: driver.OpComplete, omitted: true}
		}
		return
	}
	s, err := mark.Of(a.Err), mark.Finite(a.Err)
	if cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	x.end(Failed, err)
	attempt := max(x.m.Claim.Attempt, 1)
	x.res.RetryAfter = s.After
	if !s.HasAfter {
		x.res.RetryAfter = max(d.o.Backoff(attempt), 0)
	}
	x.ending.ambiguous = s.MaybeDone || cause != nil
	x.ending.uncounted = s.Transient || d.cutShort(caller) && !errors.Is(err, ErrPanic)
	switch {
	case s.Permanent && d.o.DeadLetter == nil:
		x.res.Halt = true
	case s.Permanent:
		x.park, x.parkedAs = err, Parked
	case x.claimed && !x.ending.uncounted && d.o.MaxAttempts > 0 && attempt >= d.o.MaxAttempts:
		x.park, x.parkedAs = fmt.Errorf("%w: run %d of %d: %w", ErrAttempts, attempt, d.o.MaxAttempts, err), Parked
	}
}

// cutShort reports whether a run was ended from outside: it neither failed nor
// died. A deadline of the caller is a handler that took too long.
func (d *concluder) cutShort(caller context.Context) bool {
	return d.ctx.Err() != nil || errors.Is(caller.Err(), context.Canceled)
}
