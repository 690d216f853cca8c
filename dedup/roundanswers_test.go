package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// letterBox is an Options.DeadLetter that counts, and fails at first.
type letterBox struct {
	fails int
	calls int
}

func (l *letterBox) send(context.Context, *dedup.Message, error) error {
	if l.calls++; l.calls <= l.fails {
		return errors.New("no dead letters yet")
	}
	return nil
}

// usedUp returns a Deduplicator with a key, "used up", that has no attempt left. Dead
// letters are counted from then on.
func usedUp(t *testing.T, s *faulty, o dedup.Options) (*dedup.Deduplicator, *letterBox) {
	l := &letterBox{fails: 1}
	o.MaxAttempts, o.DeadLetter = 1, l.send
	d := newDedup(t, s, &o)
	fails := func(context.Context, *dedup.Message) ([]byte, error) { return nil, errors.New("odd") }
	want(t, d.Do(t.Context(), message("used up", "v"), fails), dedup.Failed, false)
	*l = letterBox{}
	return d, l
}

// round is DoRound for messages with these keys, and the value "v".
func round(ctx context.Context, d *dedup.Deduplicator, h func(ctx context.Context, r *dedup.Round), keys ...string) []dedup.Result {
	var ms []*dedup.Message
	for _, key := range keys {
		ms = append(ms, message(key, "v"))
	}
	return d.Transport().DoRound(ctx, ms, h)
}

// wantPark checks that the key that has no attempt left is not recorded as parked.
func wantPark(t *testing.T, d *dedup.Deduplicator) {
	t.Helper()
	called := false
	want(t, round(context.Background(), d, func(_ context.Context, r *dedup.Round) {
		called = true
		if got := r.At(0); got.Kind != dedup.StandingPark || !errors.Is(got.Result.Err, dedup.ErrAttempts) {
			t.Errorf("got %+v, want a message to park", got)
		}
		r.Park(0, r.At(0).Result.Err)
	}, "used up")[0], dedup.Parked, true)
	if !called {
		t.Error("the handler was not called")
	}
}

// Shutdown's deadline ends a round also if nothing in it is to run.
func TestRoundOfDuplicatesEndsAtShutdownsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		d.Do(t.Context(), message("a", "v"), (&handler{}).handle)
		done := make(chan error, 1)
		go round(context.Background(), d, func(ctx context.Context, _ *dedup.Round) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Hour):
			}
			done <- context.Cause(ctx)
		}, "a")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := d.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: got %v", err)
		}
		if err := <-done; !errors.Is(err, dedup.ErrClosed) {
			t.Errorf("got %v for the end of the context", err)
		}
	})
}

// A round that is turned back sends no dead letter, and has its messages to park in the
// next try.
func TestRoundThatIsTurnedBackKeepsItsParks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d, l := usedUp(t, s, dedup.Options{Concurrency: 1})
		var wg sync.WaitGroup
		for i := range 200 { // the pace becomes known
			d.Do(t.Context(), message(fmt.Sprint("before", i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(20 * time.Microsecond)
				return nil, nil
			})
		}
		for i := range 30 {
			wg.Go(func() {
				d.Do(context.Background(), message(fmt.Sprint(i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					time.Sleep(time.Second)
					return nil, nil
				})
			})
		}
		synctest.Wait()
		claims := s.sent(driver.OpClaim)
		rs := round(t.Context(), d, func(_ context.Context, r *dedup.Round) {
			if l.calls != 0 {
				t.Errorf("got %d dead letters before the handler", l.calls)
			}
			for i, kind := range []dedup.StandingKind{dedup.StandingPark, dedup.StandingPark, dedup.StandingRun} {
				if got := r.At(i).Kind; got != kind {
					t.Errorf("message %d: got kind %v, want %v", i, got, kind)
				}
			}
			r.Park(0, r.At(0).Result.Err)
			r.Park(1, r.At(1).Result.Err)
			r.Complete(2, nil)
		}, "used up", "", "c")
		if s.sent(driver.OpClaim)-claims < 4 {
			t.Fatal("the round was not turned back")
		}
		want(t, rs[0], dedup.Parked, true)
		want(t, rs[1], dedup.Unkeyed, true)
		want(t, rs[2], dedup.Processed, true)
		if l.calls != 0 {
			t.Errorf("got %d dead letters", l.calls)
		}
		wg.Wait()
	})
}

// A message that the handler leaves when its context has ended may be half done; one that
// it gives back is not.
func TestRoundCutShortIsAmbiguous(t *testing.T) {
	for _, by := range []error{context.Canceled, dedup.ErrTimeout, dedup.ErrLeaseLost, dedup.ErrClosed} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			o := &dedup.Options{HandlerTimeout: time.Hour, Lease: time.Second}
			if errors.Is(by, dedup.ErrTimeout) {
				o.HandlerTimeout = 100 * time.Millisecond
			}
			d := newDedup(t, s, o)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			lost := dedup.NewID("orders", "lost")
			if errors.Is(by, dedup.ErrLeaseLost) {
				s.after = func(ops []driver.Op, replies []driver.Reply) {
					for i, op := range ops {
						if op.Kind == driver.OpExtend && op.ID == lost {
							replies[i].Status = driver.StatusLost
						}
					}
				}
			}
			rs := round(ctx, d, func(ctx context.Context, r *dedup.Round) {
				r.GiveBack(1)
				r.Complete(2, nil)
				switch {
				case errors.Is(by, context.Canceled):
					cancel()
				case errors.Is(by, dedup.ErrClosed):
					ended, cancel := context.WithCancel(context.Background())
					cancel()
					go func() { _ = d.Shutdown(ended) }()
				}
				<-ctx.Done()
			}, "a", "b", "c", "lost")
			for i := range 2 {
				if rs[i].Settled() || rs[i].Outcome == dedup.Failed {
					t.Errorf("%v: got %v for message %d", by, rs[i].Outcome, i)
				}
			}
			if !errors.Is(rs[0].Err, by) || errors.Is(rs[1].Err, by) {
				t.Errorf("%v: got errors %v, %v", by, rs[0].Err, rs[1].Err)
			}
			if errors.Is(by, dedup.ErrClosed) {
				return // the store may not know
			}
			want(t, rs[2], dedup.Processed, true)
			for key, ambiguous := range map[string]bool{"a": true, "b": false} {
				h := &handler{}
				want(t, d.Do(t.Context(), message(key, "v"), h.handle), dedup.Processed, true)
				if c := h.claim(1); c.Attempt != 1 || c.Ambiguous != ambiguous {
					t.Errorf("%v: got claim %+v of %q, want a first attempt, ambiguous %t", by, c, key, ambiguous)
				}
			}
		})
	}
}

// The error of a message that a round gave back is a plain one in the handler of another.
func TestErrorOfARoundIsPlainElsewhere(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	for _, back := range []bool{false, true} {
		want(t, d.Do(t.Context(), message("outer", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			return nil, round(ctx, d, func(_ context.Context, r *dedup.Round) {
				if back {
					r.GiveBack(0)
				}
			}, "inner")[0].Err
		}), dedup.Failed, false)
	}
	h := &handler{}
	d.Do(t.Context(), message("outer", "v"), h.handle)
	if c := h.claim(1); c.Attempt != 3 {
		t.Errorf("got claim %+v, want a third attempt", c)
	}
}

// A message to park is parked by the handler, or by its silence, and in no other way.
func TestRoundDeclinesToPark(t *testing.T) {
	broken := errors.New("broken pipe")
	for name, c := range map[string]struct {
		h       func(ctx context.Context, r *dedup.Round)
		outcome dedup.Outcome
		letters int
		err     error
	}{
		"silence": {func(context.Context, *dedup.Round) {}, dedup.Parked, 1, dedup.ErrAttempts},
		"an answer of the wrong kind": {func(_ context.Context, r *dedup.Round) {
			r.Complete(0, nil)
		}, dedup.Parked, 1, dedup.ErrAttempts},
		"gives back": {func(_ context.Context, r *dedup.Round) { r.GiveBack(0) }, dedup.Unavailable, 0, nil},
		"the last answer counts": {func(_ context.Context, r *dedup.Round) {
			r.Park(0, broken)
			r.GiveBack(0)
		}, dedup.Unavailable, 0, nil},
		"fails": {func(_ context.Context, r *dedup.Round) {
			r.Fail(0, dedup.RetryAfter(broken, time.Minute))
		}, dedup.Failed, 0, broken},
		"fails for good": {func(_ context.Context, r *dedup.Round) { r.Fail(0, dedup.Permanent(broken)) }, dedup.Failed, 0, broken},
		"panics": {func(_ context.Context, r *dedup.Round) {
			r.Park(0, broken)
			panic(broken)
		}, dedup.Unavailable, 0, dedup.ErrPanic},
		"outlives its timeout": {func(ctx context.Context, _ *dedup.Round) { <-ctx.Done() }, dedup.Unavailable, 0, dedup.ErrTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, l := usedUp(t, newStore(), dedup.Options{HandlerTimeout: time.Second})
				r := round(t.Context(), d, c.h, "used up")[0]
				want(t, r, c.outcome, c.letters > 0)
				if l.calls != c.letters || c.err != nil && !errors.Is(r.Err, c.err) {
					t.Errorf("got %d dead letters and %v, want %d and %v", l.calls, r.Err, c.letters, c.err)
				}
				switch {
				case name == "fails" && r.RetryAfter != time.Minute:
					t.Errorf("got RetryAfter %v", r.RetryAfter)
				case r.Halt != (name == "fails for good"):
					t.Errorf("got Halt %t", r.Halt)
				}
				if c.letters == 0 {
					wantPark(t, d)
				}
			})
		})
	}
}

// A last attempt that panics is parked by the next round, and not behind the handler's back.
func TestRoundThatPanicsInTheLastAttempt(t *testing.T) {
	l := &letterBox{}
	d := newDedup(t, newStore(), &dedup.Options{MaxAttempts: 1, DeadLetter: l.send})
	want(t, round(t.Context(), d, func(context.Context, *dedup.Round) { panic("odd") }, "used up")[0], dedup.Failed, false)
	wantPark(t, d)
	if l.calls != 0 {
		t.Errorf("got %d dead letters", l.calls)
	}
}

// Shutdown before the handler is called sends no dead letter.
func TestRoundThatWaitsAtShutdownWritesNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l := usedUp(t, newStore(), dedup.Options{Concurrency: 1})
		go d.Do(context.Background(), message("holds the slot", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(5 * time.Second)
			return nil, nil
		})
		synctest.Wait()
		done := make(chan []dedup.Result, 1)
		go func() {
			done <- round(context.Background(), d, func(context.Context, *dedup.Round) { t.Error("called") }, "used up", "")
		}()
		synctest.Wait()
		if err := d.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range <-done {
			if want(t, r, dedup.Unavailable, false); !errors.Is(r.Err, dedup.ErrClosed) {
				t.Errorf("got %v", r.Err)
			}
		}
		if l.calls != 0 {
			t.Errorf("got %d dead letters", l.calls)
		}
	})
}

// An error that unwraps to itself is no reason to hang, whatever answer it comes in.
func TestRoundWithCircularErrors(t *testing.T) {
	d, _ := usedUp(t, newStore(), dedup.Options{})
	c := &loop{}
	rs := round(t.Context(), d, func(_ context.Context, r *dedup.Round) {
		for i := range r.Len() {
			r.Park(i, c)
		}
	}, "used up", "a")
	for _, r := range rs {
		want(t, r, dedup.Parked, true)
		if errors.Is(r.Err, errBroken) {
			t.Errorf("got %v", r.Err)
		}
	}
	if r := round(t.Context(), d, func(_ context.Context, r *dedup.Round) { r.Fail(0, c) }, "")[0]; errors.Is(r.Err, errBroken) {
		t.Errorf("got %v", r.Err)
	}
}
