package dedup_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// justBeforeARenewal makes a lease fall due between the timeout of a handler
// and its return.
const justBeforeARenewal = time.Minute - time.Millisecond

func TestHandlerThatReturnsAfterItsTimeoutKeepsItsClaim(t *testing.T) {
	late := func(ctx context.Context) {
		<-ctx.Done()
		time.Sleep(5 * time.Millisecond)
	}
	t.Run("for its dead letter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var l letters
			d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: justBeforeARenewal, MaxAttempts: 1, DeadLetter: l.send})
			r := d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				late(ctx)
				return nil, ctx.Err()
			})
			want(t, r, dedup.Parked, true)
			if len(l.whys) != 1 || !errors.Is(l.whys[0], dedup.ErrTimeout) {
				t.Errorf("got dead letters %v", l.whys)
			}
		})
	})
	t.Run("for its record", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			o := &dedup.Options{HandlerTimeout: justBeforeARenewal}
			a, b := newDedup(t, s, o), newDedup(t, s, o)
			var down atomic.Bool
			s.before = func(ops []driver.Op) error {
				if down.Load() && ops[0].Kind == driver.OpComplete {
					return errBroken
				}
				return nil
			}
			done := make(chan dedup.Result, 1)
			go func() {
				done <- a.Do(context.Background(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
					late(ctx)
					down.Store(true)
					return nil, nil
				})
			}()
			time.Sleep(3 * time.Minute)
			h := &handler{}
			want(t, b.Do(t.Context(), message("k", "v"), h.handle), dedup.Busy, false)
			down.Store(false)
			want(t, <-done, dedup.Processed, true)
		})
	})
}

func TestHungHandlerLosesItsLeaseAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost atomic.Int32
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: time.Minute, Hooks: dedup.Hooks{LeaseLost: func(dedup.Event) { lost.Add(1) }}})
		d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(10 * time.Minute)
			return nil, errBroken
		})
		if lost.Load() != 1 {
			t.Errorf("got %d LeaseLost, want 1", lost.Load())
		}
	})
}

// A claim that is granted when Shutdown has begun is given back: nothing runs.
func TestNoHandlerStartsWhenItsClaimComesAfterShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.after = func(ops []driver.Op, _ []driver.Reply) {
			if ops[0].Kind == driver.OpClaim {
				time.Sleep(time.Second)
			}
		}
		d := newDedup(t, s, nil)
		h := &handler{}
		done := make(chan dedup.Result)
		go func() { done <- d.Do(context.Background(), message("k", "v"), h.handle) }()
		synctest.Wait()
		go func() {
			if err := d.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		r := <-done
		want(t, r, dedup.Unavailable, false)
		if !errors.Is(r.Err, dedup.ErrClosed) || h.runs() != 0 {
			t.Errorf("got err %v and %d runs, want that of Shutdown and none", r.Err, h.runs())
		}
		if got := s.sent(driver.OpRelease); got != 1 {
			t.Errorf("got %d releases, want that of the claim", got)
		}
	})
}

func TestNoHandlerStartsAfterShutdownBegan(t *testing.T) {
	for range 20 { // where a select could choose at random
		synctest.Test(t, func(t *testing.T) {
			d := newDedup(t, newStore(), nil)
			h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(500 * time.Millisecond)
				return nil, errBroken
			}}
			done := make(chan dedup.Result, 2)
			for range 2 {
				go func() { done <- d.Do(context.Background(), message("k", "v"), h.handle) }()
			}
			synctest.Wait()
			if err := d.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			<-done
			<-done
			if h.runs() != 1 {
				t.Errorf("got %d runs, want that of before", h.runs())
			}
		})
	}
}

func TestParkedWithoutARunCountsNone(t *testing.T) {
	var attempts []int
	d := newDedup(t, newStore(), &dedup.Options{MaxAttempts: 2, DeadLetter: func(_ context.Context, m *dedup.Message, _ error) error {
		if attempts = append(attempts, m.Claim.Attempt); len(attempts) == 1 {
			return errBroken // not confirmed
		}
		return nil
	}})
	h := fails(errBroken, 9)
	for range 3 {
		d.Do(t.Context(), message("k", "v"), h.handle)
	}
	if len(attempts) != 2 || attempts[0] != 2 || attempts[1] != 2 || h.runs() != 2 {
		t.Errorf("got dead letters of attempts %v after %d runs, want 2 and 2 after 2", attempts, h.runs())
	}
}
