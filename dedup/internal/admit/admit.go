// Package admit bounds how many claims are held ahead of their handlers, and how many
// handlers run at once.
package admit

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/internal/reason"
)

// Admission lets a call claim its keys, and later run its handler.
//
// A crash flags every held claim Ambiguous and costs it an attempt, although its
// handler may not have begun. So a call may claim when its handler will probably
// begin within about 100 ms. Fast handlers let many calls in, and their claims fill
// the store's batches. Slow handlers make calls wait here without a claim.
//
// The pace of the handlers is known from the time that they took. When they turn
// slow, claims are held that were taken at the old pace. So while calls wait for
// their handlers, sweep looks every 100 ms how many handlers began since. It turns
// back the claims beyond two such intervals: their calls give them back and enter
// again.
//
// A call made inside a handler runs in the slot of that handler, and waits for
// nobody: the slots may all belong to handlers that make such calls.
type Admission struct {
	Slots int // handlers at once

	mu       sync.Mutex
	ahead    int           // claims of the calls that are in and whose handler has not begun
	running  int           // handlers
	began    int           // claims whose handler has begun since the last sweep
	took     time.Duration // moving average of a handler call; 0: not known yet
	entering queue
	starting queue
	sweeping bool // sweep is to be called
}

// Ticket is one call's place in an Admission.
type Ticket struct {
	Parent *Ticket // of the handler that makes the call; nil: there is none
	Claims int     // those for one call of a batch handler count as one
	state  ticketState
	took   time.Duration // of the handlers so far
	calls  int           // of handlers so far
	wake   chan struct{} // with room for one; nil: it never waited
}

type ticketState uint8

const (
	outside  ticketState = iota
	entering             // waits to be let in
	ahead                // may claim, or has claimed
	starting             // has claimed, and waits for a slot
	running              // has a slot
	nested               // runs in the slot of another
)

// queue is the tickets that wait in a state.
type queue []*Ticket

// drop takes t out of the queue.
func (q *queue) drop(t *Ticket) {
	if i := slices.Index(*q, t); i > 0 {
		*q = slices.Delete(*q, i, i+1)
	} else { // mostly
		(*q)[0] = nil
		*q = (*q)[1:]
	}
}

const (
	// soon is how far ahead of its handler a claim may be taken.
	soon = 100 * time.Millisecond
	// maxAhead bounds the claims ahead of their handlers: 256 lanes of 8 messages.
	maxAhead = 2048
)

// ErrTurnedBack means that the handlers have turned slow. The call gives its claims back and
// enters again.
var ErrTurnedBack = errors.New("turned back: the handlers have turned slow")

// times multiplies, up to maxAhead.
func times(n, m int) int {
	if m > 0 && n > maxAhead/m {
		return maxAhead
	}
	return n * m
}

// limit returns how many claims may be ahead. The caller holds mu.
func (a *Admission) limit() int {
	least := times(a.Slots, 2)
	if a.took == 0 {
		return least
	}
	return max(least, times(a.Slots, int(soon/a.took)))
}

// Enter waits until t may claim, unless ctx has ended or closing is closed. It is
// followed by Leave.
func (a *Admission) Enter(ctx context.Context, closing <-chan struct{}, t *Ticket) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if isClosed(closing) {
		return reason.ErrClosed
	}
	a.mu.Lock()
	switch {
	case t.Parent != nil && t.Parent.state >= running:
		t.state = nested
	case a.ahead < a.limit():
		a.letIn(t)
	default:
		t.state = entering
		a.entering = append(a.entering, t)
		return a.wait(ctx, closing, t)
	}
	a.mu.Unlock()
	return nil
}

// Start waits for a slot, under the same conditions, or until t is turned back.
func (a *Admission) Start(ctx context.Context, closing <-chan struct{}, t *Ticket) error {
	a.mu.Lock()
	switch {
	case t.state == nested:
	case a.running < a.Slots:
		a.begin(t)
		a.admit()
	default:
		t.state = starting
		a.starting = append(a.starting, t)
		a.sweepLater()
		return a.wait(ctx, closing, t)
	}
	a.mu.Unlock()
	return nil
}

// wait waits for the turn of t. The caller holds mu, which is released.
func (a *Admission) wait(ctx context.Context, closing <-chan struct{}, t *Ticket) (err error) {
	t.fallAsleep()
	a.mu.Unlock()
	select {
	case <-t.wake:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-closing:
		err = reason.ErrClosed
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	t.wakeUp()
	switch {
	case t.state == outside:
		return ErrTurnedBack
	case err == nil:
	case t.state == starting:
		t.state = ahead
		a.starting.drop(t)
	case t.state == running: // the turn came meanwhile: it is passed on
		t.state = ahead
		a.running--
		a.ahead += t.Claims
		a.admit()
	default: // likewise
		a.release(t)
	}
	return err
}

func (t *Ticket) fallAsleep() {
	if t.wake == nil {
		t.wake = make(chan struct{}, 1)
	}
}

// wakeUp takes a wake-up that came when the wait had ended already. The next wait of t would
// take it for its own.
func (t *Ticket) wakeUp() {
	select {
	case <-t.wake:
	default:
	}
}

// Ran notes how long a handler of t took.
func (t *Ticket) Ran(took time.Duration) {
	t.took += took
	t.calls++
}

// Leave gives back what t has.
func (a *Admission) Leave(t *Ticket) {
	if t.state == outside { // only a call that waits has its state changed by others
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.release(t)
}

// Within returns how many handler calls are done in d, by the time that they have
// taken: 0 if that is not known yet.
func (a *Admission) Within(d time.Duration) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.took == 0 {
		return 0
	}
	return int(d / a.took)
}

// The callers of the methods that follow hold mu.

func (a *Admission) letIn(t *Ticket) {
	t.state = ahead
	a.ahead += t.Claims
}

func (a *Admission) begin(t *Ticket) {
	t.state = running
	a.ahead -= t.Claims
	a.began += t.Claims
	a.running++
}

func (a *Admission) release(t *Ticket) {
	switch t.state {
	case entering:
		a.entering.drop(t)
	case starting:
		a.starting.drop(t)
		a.ahead -= t.Claims
	case ahead:
		a.ahead -= t.Claims
	case running:
		a.running--
	case outside, nested:
	}
	t.state = outside
	for ; t.calls > 0; t.calls-- {
		took := t.took / time.Duration(t.calls)
		t.took -= took
		if a.took == 0 {
			a.took = took
		}
		a.took = max((7*a.took+took)/8, 1)
	}
	a.admit()
}

// admit gives the calls that wait what is free.
func (a *Admission) admit() {
	for len(a.starting) > 0 && a.running < a.Slots {
		t := a.starting[0]
		a.starting.drop(t)
		a.begin(t)
		t.wake <- struct{}{}
	}
	for len(a.entering) > 0 && a.ahead < a.limit() {
		t := a.entering[0]
		a.entering.drop(t)
		a.letIn(t)
		t.wake <- struct{}{}
	}
}

func (a *Admission) sweepLater() {
	if !a.sweeping {
		a.sweeping, a.began = true, 0
		time.AfterFunc(soon, a.sweep)
	}
}

// sweep turns calls back when handlers begin too slowly for the claims ahead.
func (a *Admission) sweep() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sweeping = false
	if len(a.starting) == 0 {
		return
	}
	a.took = max(a.took, soon/time.Duration(max(a.began, 1))*time.Duration(a.Slots))
	keep := max(times(a.Slots, 2), times(a.began, 2))
	for len(a.starting) > 0 && a.ahead > keep {
		t := a.starting[len(a.starting)-1]
		a.starting.drop(t)
		t.state = outside
		a.ahead -= t.Claims
		t.wake <- struct{}{}
	}
	a.sweepLater()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
