package dedup

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/internal/hangtest"
)

// A caller that gives up at the moment at which it is let in passes its turn on, and
// so does one that gives up as it is given a slot.
func TestTurnOfACallerThatGivesUpIsPassedOn(t *testing.T) {
	type wait func(a *admission, ctx context.Context, never <-chan struct{}, t *ticket) error
	for name, c := range map[string]struct {
		first int // tickets that take all there is
		wait  wait
		ready func(a *admission, first []*ticket) // brings them there
	}{
		"to claim": {2, (*admission).enter, func(*admission, []*ticket) {}},
		"to start": {1, func(a *admission, ctx context.Context, never <-chan struct{}, t *ticket) error {
			a.mu.Lock()
			a.letIn(t)
			a.mu.Unlock()
			return a.start(ctx, never, t)
		}, func(a *admission, first []*ticket) {
			for _, t := range first {
				a.begin(t)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangtest.Watch(t)
				a := &admission{slots: 1}
				never := make(chan struct{})
				first := make([]*ticket, c.first)
				for i := range first {
					first[i] = &ticket{claims: 1}
					a.letIn(first[i])
				}
				c.ready(a, first)
				ctx, cancel := context.WithCancel(t.Context())
				quits, stays := &ticket{claims: 1}, &ticket{claims: 1}
				quit, stayed := make(chan error, 1), make(chan error, 1)
				go func() { quit <- c.wait(a, ctx, never, quits) }()
				synctest.Wait()
				go func() { stayed <- c.wait(a, t.Context(), never, stays) }()
				synctest.Wait()
				a.mu.Lock()
				cancel() // it has seen that, and wants the mutex
				a.release(first[0])
				a.mu.Unlock()
				if err := <-quit; err == nil {
					t.Error("the caller that gave up was let in")
				}
				if err := <-stayed; err != nil {
					t.Errorf("the next one: %v", err)
				}
				a.leave(quits)
				a.leave(stays)
				for _, f := range first {
					a.leave(f)
				}
				if a.ahead != 0 || a.running != 0 || len(a.entering)+len(a.starting) != 0 {
					t.Errorf("got %d ahead, %d running, %d and %d waiting after all have left", a.ahead, a.running, len(a.entering), len(a.starting))
				}
				time.Sleep(time.Second) // the last sweep
			})
		})
	}
}

// However many handlers may run, and however fast they are, the claims ahead of them
// are bounded, and some are let in.
func TestLimitOfClaimsAhead(t *testing.T) {
	for _, slots := range []int{1, 2, 4, maxAhead, math.MaxInt - 1, math.MaxInt} {
		for _, took := range []time.Duration{0, 1, time.Microsecond, time.Millisecond, soon, time.Hour, math.MaxInt64} {
			a := &admission{slots: slots, took: took}
			n := a.limit()
			if n < 2 || n > maxAhead {
				t.Errorf("%d slots, handlers of %v: got %d claims ahead, want 2 to %d", slots, took, n, maxAhead)
			}
			if slots < 100 && took >= time.Millisecond && n > max(2*slots, slots*int(soon/took)) {
				t.Errorf("%d slots, handlers of %v: got %d claims ahead, more than begin in %v", slots, took, n, soon)
			}
		}
	}
}
