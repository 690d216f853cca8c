package admit

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
	type wait func(a *Admission, ctx context.Context, never <-chan struct{}, t *Ticket) error
	for name, c := range map[string]struct {
		first int // tickets that take all there is
		wait  wait
		ready func(a *Admission, first []*Ticket) // brings them there
	}{
		"to claim": {2, (*Admission).Enter, func(*Admission, []*Ticket) {}},
		"to start": {1, func(a *Admission, ctx context.Context, never <-chan struct{}, t *Ticket) error {
			a.mu.Lock()
			a.letIn(t)
			a.mu.Unlock()
			return a.Start(ctx, never, t)
		}, func(a *Admission, first []*Ticket) {
			for _, t := range first {
				a.begin(t)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangtest.Watch(t)
				a := &Admission{Slots: 1}
				never := make(chan struct{})
				first := make([]*Ticket, c.first)
				for i := range first {
					first[i] = &Ticket{Claims: 1}
					a.letIn(first[i])
				}
				c.ready(a, first)
				ctx, cancel := context.WithCancel(t.Context())
				quits, stays := &Ticket{Claims: 1}, &Ticket{Claims: 1}
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
				a.Leave(quits)
				again := make(chan error, 1) // a call uses its ticket again, and has no turn to spare
				waits, stop := context.WithCancel(t.Context())
				defer stop()
				go func() { again <- c.wait(a, waits, never, quits) }()
				synctest.Wait()
				select {
				case err := <-again:
					t.Errorf("it was let in again before its turn: %v", err)
				default:
					stop()
					if err := <-again; err == nil {
						t.Error("it was let in after it gave up")
					}
				}
				a.Leave(quits)
				a.Leave(stays)
				for _, f := range first {
					a.Leave(f)
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
			a := &Admission{Slots: slots, took: took}
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
