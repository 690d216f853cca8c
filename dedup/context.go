package dedup

import (
	"context"
	"sync"
	"time"
)

// run is the contexts of one call of a handler.
type run struct {
	claims  lazyContext // until all is recorded: ends with the caller's, and when a claim is lost
	handler lazyContext // the handler's: ends with claims, and at its timeout
}

// newRuns returns n of them.
func newRuns(caller context.Context, n int) []run {
	runs := make([]run, n)
	for i := range runs {
		r := &runs[i]
		r.claims.parent, r.handler.parent = caller, &r.claims
	}
	return runs
}

// lose ends the run, because a claim was lost.
func (r *run) lose(why error) {
	_ = r.handler.cause(time.Now()) // a timeout that has passed came first
	_ = r.claims.made()             // and this comes before an end of the caller's that is yet to come
	r.claims.end(why)
}

// end ends the run, which is done.
func (r *run) end() {
	r.handler.end(nil)
	r.claims.end(nil)
}

// lazyContext is a context of package context that is not made before somebody
// asks whether it has ended: a deadline and a cancellation are a third of what a
// call of Do allocates, and many handlers never ask. What is made is real, so
// Cause, AfterFunc and derived contexts know it. Asked for the first time when
// both its deadline and its parent's end have passed, it takes the parent's word.
type lazyContext struct {
	parent context.Context

	mu       sync.Mutex
	deadline time.Time // with ErrTimeout; zero: none but the parent's
	over     bool
	why      error // why it is over; nil: it is done
	real     context.Context
	cancel   context.CancelCauseFunc // of real, without a deadline
	stop     context.CancelFunc      // of real, with one
}

// expire sets the deadline, before the context is handed out.
func (c *lazyContext) expire(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = at
}

// end ends c, if it has not ended yet.
func (c *lazyContext) end(why error) {
	c.mu.Lock()
	if !c.over {
		c.over, c.why = true, why
	}
	cancel, stop := c.cancel, c.stop
	c.mu.Unlock()
	switch {
	case cancel != nil:
		cancel(why)
	case stop != nil:
		stop()
	}
}

// cause is context.Cause, and does not make a context that has not ended.
func (c *lazyContext) cause(now time.Time) error {
	c.mu.Lock()
	unasked := c.real == nil && !c.over && (c.deadline.IsZero() || now.Before(c.deadline))
	c.mu.Unlock()
	if unasked {
		if p, ok := c.parent.(*lazyContext); ok && p.cause(now) == nil || !ok && c.parent.Err() == nil {
			return nil
		}
	}
	return context.Cause(c)
}

// made returns the real context.
func (c *lazyContext) made() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.real != nil:
	case c.over || c.deadline.IsZero():
		c.real, c.cancel = context.WithCancelCause(c.parent)
		if c.over {
			c.cancel(c.why)
		}
	default:
		c.real, c.stop = context.WithDeadlineCause(c.parent, c.deadline, ErrTimeout)
	}
	return c.real
}

// Done is as package context says, and so are the others.
func (c *lazyContext) Done() <-chan struct{} { return c.made().Done() }
func (c *lazyContext) Err() error            { return c.made().Err() }

// String is for those who print what they are called with: the fields are in use.
func (c *lazyContext) String() string { return "dedup.Context" }

func (c *lazyContext) Deadline() (time.Time, bool) {
	c.mu.Lock()
	own := c.deadline
	c.mu.Unlock()
	d, ok := c.parent.Deadline()
	if !own.IsZero() && (!ok || own.Before(d)) {
		return own, true
	}
	return d, ok
}

// Value finds the context that was made, which is how package context knows it.
func (c *lazyContext) Value(key any) any {
	c.mu.Lock()
	real := c.real
	c.mu.Unlock()
	if real != nil {
		return real.Value(key)
	}
	return c.parent.Value(key)
}
