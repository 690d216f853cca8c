package dedup

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/internal/admit"
)

// calls counts the calls of a Deduplicator that are under way, so that Shutdown can
// wait for them.
type calls struct {
	closing chan struct{} // closed by Shutdown
	mu      sync.Mutex
	closed  bool
	running int           // calls under way
	idle    chan struct{} // closed when closed and nothing is running
}

// call is one call of Do, DoBatch, DoEach or DoRound, with a handler or a batch handler.
type call struct {
	in       *calls
	received time.Time
	parent   *run // in whose handler it was made; nil: none
	one      Handler
	many     BatchHandler
	ticket   admit.Ticket
	over     bool // under the mutex of calls
}

// inside reports whether c was made in a handler of other, or in one further in.
func (c *call) inside(other *call) bool {
	for r := c.parent; r != nil; r = r.call.parent {
		if r.call == other {
			return true
		}
	}
	return false
}

// prepare makes the ticket ready for a pass of n deliveries.
func (c *call) prepare(n int) {
	t := &c.ticket
	t.Claims = 1
	if c.one != nil {
		t.Claims = n
	}
	if r := c.parent; r != nil {
		t.Parent = &r.call.ticket
	}
}

func (c *calls) init() {
	c.closing = make(chan struct{})
	c.idle = make(chan struct{})
}

// enter counts a call in, unless the Deduplicator is shut down.
func (c *calls) enter(ctx context.Context, this *call) bool {
	this.in, this.received, this.parent = c, time.Now(), c.enclosing(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running++
	return true
}

func (c *calls) exit(this *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	this.over = true
	c.running--
	if c.closed && c.running == 0 {
		close(c.idle)
	}
}

// enclosing returns the innermost run of c in whose handler, or dead letter, ctx was
// made; nil if there is none.
func (c *calls) enclosing(ctx context.Context) *run {
	r, _ := ctx.Value(runKey{}).(*run)
	for r != nil && r.call.in != c {
		r, _ = r.claims.parent.Value(runKey{}).(*run)
	}
	return r
}

// nested reports whether ctx is that of a handler, or dead letter, that still runs.
func (c *calls) nested(ctx context.Context) bool {
	r := c.enclosing(ctx)
	if r == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !r.call.over
}

// close refuses new calls. It reports false, and does nothing, if its caller is inside a
// handler or hook, and would wait for itself.
func (c *calls) close(ctx context.Context) bool {
	r, hook := c.enclosing(ctx), inHook()
	c.mu.Lock()
	defer c.mu.Unlock()
	if hook || r != nil && !r.call.over {
		return false
	}
	if !c.closed {
		c.closed = true
		close(c.closing)
		if c.running == 0 {
			close(c.idle)
		}
	}
	return true
}

// drain waits for the calls under way, until ctx ends.
func (c *calls) drain(ctx context.Context) error {
	select {
	case <-c.idle:
	case <-ctx.Done():
		c.mu.Lock()
		running := c.running
		c.mu.Unlock()
		if running > 0 {
			return fmt.Errorf("dedup: shut down with %d calls still running: %w", running, ctx.Err())
		}
	}
	return nil
}

func (c *calls) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
