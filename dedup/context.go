package dedup

import (
	"context"
	"sync"
	"time"
)

// run is one call of a handler, and its contexts.
type run struct {
	call    *call
	message *Message    // of a Handler; nil: a batch handler has no one message
	claims  lazyContext // until all is recorded: ends with the caller's, and when a claim is lost
	handler lazyContext // the handler's: ends with claims, and at its timeout
	hung    bool        // under the renewer's mutex: it outlived its timeout and a lease
	onLost  func(x *delivery, hung bool)
	few     [1]*Message // room for the messages
	answer  [1]Answer   // of a Handler
}

func (r *run) init(c *call, ctx context.Context, onLost func(x *delivery, hung bool)) {
	r.call, r.onLost = c, onLost
	r.claims.parent, r.claims.run, r.handler.parent = ctx, r, &r.claims
}

// Lost is called when the claim of x is lost.
func (x *delivery) Lost(why error, hung bool) {
	x.of.lose(why)
	x.of.onLost(x, hung)
}

// runKey finds the run that a context belongs to.
type runKey struct{}

// ClaimFrom returns the claim under which the handler runs whose context ctx is, or
// was derived from. A batch handler has a claim for each of its messages instead:
// see Message.Claim.
func ClaimFrom(ctx context.Context) (Claim, bool) {
	if r, _ := ctx.Value(runKey{}).(*run); r != nil && r.message != nil {
		return r.message.Claim, true
	}
	return Claim{}, false
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
// call of Do allocates, and many handlers never ask. The context that is made is real,
// so Cause, AfterFunc and derived contexts know it. Asked for the first time when
// both its deadline and its parent's end have passed, it takes the parent's word.
type lazyContext struct {
	parent context.Context
	run    *run // that it finds; nil: that of its parent

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

// String is for handlers that print their arguments: the fields are in use.
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
	if key == (runKey{}) && c.run != nil {
		return c.run
	}
	c.mu.Lock()
	real := c.real
	c.mu.Unlock()
	if real != nil {
		return real.Value(key)
	}
	return c.parent.Value(key)
}
