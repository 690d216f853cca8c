package dedup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

func TestDuplicateGetsTheRecordedResult(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	h := &handler{}
	m := message("k1", "v")
	first := d.Do(t.Context(), m, h.handle)
	want(t, first, dedup.Processed, true)
	again := d.Do(t.Context(), message("k1", "v"), h.handle)
	want(t, again, dedup.Duplicate, true)
	if string(again.Value) != "result 1" || string(first.Value) != "result 1" {
		t.Errorf("got results %q and %q, want \"result 1\" twice", first.Value, again.Value)
	}
	if again.First != m.Position || again.ID != dedup.NewID("orders", "k1") {
		t.Errorf("got first %v, id %v", again.First, again.ID)
	}
	if c := h.claim(1); c.Attempt != 1 || c.Ambiguous || c.Stale || c.Key != "k1" || c.Token == 0 {
		t.Errorf("got claim %+v", c)
	}
	if h.runs() != 1 {
		t.Errorf("got %d runs, want 1", h.runs())
	}
}

func TestResultLongerThanMaxResultIsOmitted(t *testing.T) {
	d := newDedup(t, newStore(), &dedup.Options{MaxResult: 4})
	h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) { return []byte("12345"), nil }}
	for _, outcome := range []dedup.Outcome{dedup.Processed, dedup.Duplicate} {
		r := d.Do(t.Context(), message("k", "v"), h.handle)
		want(t, r, outcome, true)
		if !r.Omitted || r.Value != nil {
			t.Errorf("%v: got omitted %v, value %q", outcome, r.Omitted, r.Value)
		}
	}
}

func TestFailedMessageRunsAgainAndCounts(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	h := fails(errors.New("no stock"), 3)
	for run := 1; run <= 3; run++ {
		r := d.Do(t.Context(), message("k", "v"), h.handle)
		want(t, r, dedup.Failed, false)
		if r.Err == nil || r.Halt {
			t.Errorf("run %d: got err %v, halt %v", run, r.Err, r.Halt)
		}
	}
	want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
	for run := 1; run <= 4; run++ {
		if c := h.claim(run); c.Attempt != run || c.Ambiguous {
			t.Errorf("run %d: got attempt %d, ambiguous %v", run, c.Attempt, c.Ambiguous)
		}
	}
}

func TestHandlerSteers(t *testing.T) {
	cause := errors.New("cause")
	panics := func(int, context.Context, *dedup.Message) ([]byte, error) { panic(cause) }
	for name, c := range map[string]struct {
		err       error
		script    func(int, context.Context, *dedup.Message) ([]byte, error)
		attempt   int // of the second run
		ambiguous bool
		after     time.Duration
	}{
		"error":                 {err: cause, attempt: 2},
		"Transient":             {err: dedup.Transient(cause), attempt: 1},
		"MaybeDone":             {err: dedup.MaybeDone(cause), attempt: 2, ambiguous: true},
		"RetryAfter":            {err: dedup.RetryAfter(cause, 42*time.Minute), attempt: 2, after: 42 * time.Minute},
		"RetryAfter(Transient)": {err: dedup.RetryAfter(dedup.Transient(cause), time.Hour), attempt: 1, after: time.Hour},
		"wrapped":               {err: fmt.Errorf("more: %w", dedup.MaybeDone(cause)), attempt: 2, ambiguous: true},
		"panic":                 {script: panics, attempt: 2, ambiguous: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDedup(t, newStore(), nil)
			h := fails(c.err, 1)
			if c.script != nil {
				h.script = func(run int, ctx context.Context, m *dedup.Message) ([]byte, error) {
					if run == 1 {
						return c.script(run, ctx, m)
					}
					return nil, nil
				}
			}
			r := d.Do(t.Context(), message("k", "v"), h.handle)
			want(t, r, dedup.Failed, false)
			if !errors.Is(r.Err, cause) {
				t.Errorf("got err %v, want it to match the cause", r.Err)
			}
			if c.after != 0 && r.RetryAfter != c.after {
				t.Errorf("got RetryAfter %v, want %v", r.RetryAfter, c.after)
			}
			if c.script != nil && !errors.Is(r.Err, dedup.ErrPanic) {
				t.Errorf("got err %v, want it to match ErrPanic", r.Err)
			}
			want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
			if got := h.claim(2); got.Attempt != c.attempt || got.Ambiguous != c.ambiguous {
				t.Errorf("second run: got attempt %d, ambiguous %v; want %d, %v", got.Attempt, got.Ambiguous, c.attempt, c.ambiguous)
			}
		})
	}
}

func TestHandlerThatEndsItsGoroutineLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Lease: time.Second})
		h := &handler{script: func(run int, _ context.Context, _ *dedup.Message) ([]byte, error) {
			if run == 1 {
				runtime.Goexit() // as t.FailNow does
			}
			return nil, nil
		}}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			d.Do(context.Background(), message("k", "v"), h.handle)
		}()
		<-ended
		r, err := d.Settle(t.Context(), message("k", "v"), h.handle) // until the lease has lapsed: nobody renews it
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, dedup.Processed, true)
		if c := h.claim(2); !c.Ambiguous || c.Attempt != 2 {
			t.Errorf("got claim %+v, want an ambiguous second attempt", c)
		}
	})
}

func TestMaxAttemptsParksOnce(t *testing.T) {
	var l letters
	d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send, MaxAttempts: 3})
	h := fails(errors.New("poison"), 99)
	for range 2 {
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Failed, false)
	}
	want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Parked, true)
	for range 2 {
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.AlreadyParked, true)
	}
	if h.runs() != 3 || len(l.whys) != 1 {
		t.Fatalf("got %d runs and %d dead letters, want 3 and 1", h.runs(), len(l.whys))
	}
	if !errors.Is(l.whys[0], dedup.ErrAttempts) || !strings.Contains(l.whys[0].Error(), "poison") {
		t.Errorf("got reason %v", l.whys[0])
	}
}

func TestUsedUpAttemptsParkWithoutRunning(t *testing.T) {
	for _, runs := range []int{2, 5} {
		s := newStore()
		h := fails(errors.New("no"), 99)
		lenient := newDedup(t, s, nil)
		for range runs {
			want(t, lenient.Do(t.Context(), message("k", "v"), h.handle), dedup.Failed, false)
		}
		l := letters{err: errors.New("dead letter topic is down")}
		strict := newDedup(t, s, &dedup.Options{DeadLetter: l.send, MaxAttempts: 2})
		r := strict.Do(t.Context(), message("k", "v"), h.handle)
		want(t, r, dedup.Failed, false)
		if !errors.Is(r.Err, l.err) {
			t.Errorf("got err %v, want that of the dead letter", r.Err)
		}
		l.err = nil
		want(t, strict.Do(t.Context(), message("k", "v"), h.handle), dedup.Parked, true)
		if h.runs() != runs {
			t.Errorf("MaxAttempts 2: got %d runs, want the %d from before", h.runs(), runs)
		}
	}
}

func TestPermanent(t *testing.T) {
	cause := errors.New("malformed")
	t.Run("parks", func(t *testing.T) {
		var l letters
		d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send})
		r := d.Do(t.Context(), message("k", "v"), fails(dedup.Permanent(cause), 1).handle)
		want(t, r, dedup.Parked, true)
		if !errors.Is(r.Err, cause) || len(l.whys) != 1 {
			t.Errorf("got err %v, %d dead letters", r.Err, len(l.whys))
		}
	})
	t.Run("halts without a dead letter", func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		r := d.Do(t.Context(), message("k", "v"), fails(dedup.Permanent(cause), 1).handle)
		want(t, r, dedup.Failed, false)
		if !r.Halt {
			t.Error("got no halt")
		}
	})
	t.Run("a dead letter that is not confirmed comes again", func(t *testing.T) {
		l := letters{err: errBroken}
		d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send})
		h := fails(dedup.Permanent(cause), 9)
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Failed, false)
		l.err = nil
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Parked, true)
	})
}

func TestHandlerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: time.Minute})
		h := &handler{script: func(run int, ctx context.Context, _ *dedup.Message) ([]byte, error) {
			if run > 1 {
				return nil, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		start := time.Now()
		r := d.Do(t.Context(), message("k", "v"), h.handle)
		want(t, r, dedup.Failed, false)
		if !errors.Is(r.Err, dedup.ErrTimeout) || time.Since(start) != time.Minute {
			t.Errorf("got err %v after %v", r.Err, time.Since(start))
		}
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
		if c := h.claim(2); !c.Ambiguous || c.Attempt != 2 {
			t.Errorf("got claim %+v, want an ambiguous second attempt", c)
		}
	})
}

// After HandlerTimeout a handler that ignores its context loses its lease, and
// another may take over. Its late result is refused.
func TestHandlerThatOutlivesItsTimeoutIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		o := &dedup.Options{HandlerTimeout: time.Second, Lease: 10 * time.Second}
		a, b := newDedup(t, s, o), newDedup(t, s, o)
		stuck := make(chan struct{})
		late := make(chan dedup.Result, 1)
		go func() {
			late <- a.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				<-stuck
				return []byte("late"), nil
			})
		}()
		synctest.Wait()
		h := &handler{}
		r, err := b.Settle(t.Context(), message("k", "v"), h.handle)
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, dedup.Processed, true)
		if c := h.claim(1); !c.Ambiguous {
			t.Error("the take-over was not flagged Ambiguous")
		}
		close(stuck)
		r = <-late
		want(t, r, dedup.Uncertain, false)
		if !errors.Is(r.Err, dedup.ErrLeaseLost) {
			t.Errorf("got err %v, want ErrLeaseLost", r.Err)
		}
	})
}

func TestCancelledHandlerIsAmbiguousAndNotCounted(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("partition revoked")
	h := &handler{script: func(run int, ctx context.Context, _ *dedup.Message) ([]byte, error) {
		if run == 1 {
			cancel(why)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return nil, nil
	}}
	r := d.Do(ctx, message("k", "v"), h.handle)
	want(t, r, dedup.Failed, false)
	if !errors.Is(r.Err, why) {
		t.Errorf("got err %v, want the cause", r.Err)
	}
	want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
	if c := h.claim(2); !c.Ambiguous || c.Attempt != 1 {
		t.Errorf("got claim %+v, want an ambiguous first attempt", c)
	}
}

func TestDuplicateInProcessWaitsWithoutASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 1})
		h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(500 * time.Millisecond)
			return []byte("one"), nil
		}}
		var wg sync.WaitGroup
		var processed, duplicates atomic.Int32
		for range 5 {
			wg.Go(func() {
				switch r := d.Do(t.Context(), message("k", "v"), h.handle); r.Outcome {
				case dedup.Processed:
					processed.Add(1)
				case dedup.Duplicate:
					duplicates.Add(1)
					if string(r.Value) != "one" {
						t.Errorf("got value %q", r.Value)
					}
				default:
					t.Errorf("got %v", r.Outcome)
				}
			})
		}
		wg.Wait()
		if processed.Load() != 1 || duplicates.Load() != 4 || h.runs() != 1 {
			t.Errorf("got %d processed, %d duplicates, %d runs", processed.Load(), duplicates.Load(), h.runs())
		}
		if n := s.sent(driver.OpClaim); n != 5 {
			t.Errorf("got %d claims, want one for each", n)
		}
	})
}

func TestDuplicateInProcessIsBusyAfterItsPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(time.Minute)
				return nil, nil
			})
		}()
		synctest.Wait()
		start := time.Now()
		r := d.Do(t.Context(), message("k", "v"), (&handler{}).handle)
		want(t, r, dedup.Busy, false)
		if got := time.Since(start); got != time.Second || r.RetryAfter == 0 {
			t.Errorf("got Busy after %v, RetryAfter %v", got, r.RetryAfter)
		}
		<-done
	})
}

func TestHeldElsewhereIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		a, b := newDedup(t, s, nil), newDedup(t, s, nil)
		done := make(chan dedup.Result)
		go func() {
			done <- a.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(10 * time.Minute) // twenty leases
				return []byte("a"), nil
			})
		}()
		synctest.Wait()
		r := b.Do(t.Context(), message("k", "v"), (&handler{}).handle)
		want(t, r, dedup.Busy, false)
		if r.RetryAfter <= 0 {
			t.Errorf("got RetryAfter %v, want a while", r.RetryAfter)
		}
		r, err := b.Settle(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			t.Error("ran a key that was recorded")
			return nil, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, dedup.Duplicate, true)
		if string(r.Value) != "a" {
			t.Errorf("got value %q", r.Value)
		}
		<-done
	})
}

func TestStoreOutageDuringTheRecordRunsTheHandlerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Lease: 10 * time.Second})
		down := time.Now().Add(time.Hour)
		h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.before = func([]driver.Op) error {
				if time.Now().Before(down) {
					return errBroken
				}
				return nil
			}
			return []byte("once"), nil
		}}
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
		if h.runs() != 1 {
			t.Errorf("got %d runs", h.runs())
		}
	})
}

func TestLostReplies(t *testing.T) {
	for _, kind := range []driver.OpKind{driver.OpClaim, driver.OpComplete} {
		t.Run(kind.String(), func(t *testing.T) {
			s := newStore()
			s.after = loseReplies(kind, 2)
			d := newDedup(t, s, nil)
			h := &handler{}
			want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
			if c := h.claim(1); h.runs() != 1 || c.Attempt != 1 || c.Ambiguous {
				t.Errorf("got %d runs, claim %+v", h.runs(), c)
			}
		})
	}
	t.Run("release", func(t *testing.T) {
		s := newStore()
		s.after = loseReplies(driver.OpRelease, 1)
		d := newDedup(t, s, nil)
		h := fails(dedup.MaybeDone(errBroken), 1)
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Failed, false)
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
		if c := h.claim(2); c.Attempt != 2 || !c.Ambiguous {
			t.Errorf("got claim %+v", c)
		}
	})
}

func TestUnavailableStore(t *testing.T) {
	for policy, halt := range map[dedup.StorePolicy]bool{dedup.StorePause: false, dedup.StoreHalt: true} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			s.before = func([]driver.Op) error { return errBroken }
			d := newDedup(t, s, &dedup.Options{OnStoreError: policy})
			h := &handler{}
			r := d.Do(t.Context(), message("k", "v"), h.handle)
			want(t, r, dedup.Unavailable, false)
			if !errors.Is(r.Err, dedup.ErrStore) || !errors.Is(r.Err, errBroken) || r.Halt != halt || h.runs() != 0 {
				t.Errorf("got err %v, halt %v, %d runs", r.Err, r.Halt, h.runs())
			}
		})
	}
}

func TestGrantWhoseCallerHasGoneIsReleasedUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, nil)
		block := make(chan struct{})
		s.before = func([]driver.Op) error { <-block; return nil }
		do := func(ctx context.Context, key string) <-chan dedup.Result {
			out := make(chan dedup.Result, 1)
			go func() { out <- d.Do(ctx, message(key, "v"), (&handler{}).handle) }()
			synctest.Wait()
			return out
		}
		ctx, cancel := context.WithCancel(t.Context())
		first := do(t.Context(), "first")   // its claim is in an Apply
		second := do(t.Context(), "second") // is to lead the next one...
		gone := do(ctx, "gone")             // ...which carries this
		block <- struct{}{}
		synctest.Wait()
		cancel()
		want(t, <-gone, dedup.Unavailable, false)
		queued := do(ctx, "queued") // its caller has gone before anything is sent
		want(t, <-queued, dedup.Unavailable, false)
		close(block)
		want(t, <-first, dedup.Processed, true)
		want(t, <-second, dedup.Processed, true)
		synctest.Wait()
		rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "gone"))
		if err != nil || rec.State != driver.StateReleased || rec.Attempt != 0 || rec.Ambiguous {
			t.Errorf("got record %+v, err %v; want it released, uncounted", rec, err)
		}
		rec, err = s.Lookup(t.Context(), dedup.NewID("orders", "queued"))
		if err != nil || rec.State != driver.StateFree {
			t.Errorf("got record %+v, err %v; want none", rec, err)
		}
	})
}

func TestKeysAndPayloadsNeverReachLogsOrErrors(t *testing.T) {
	var log bytes.Buffer
	var l letters
	d := newDedup(t, newStore(), &dedup.Options{
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), DeadLetter: l.send, MaxAttempts: 1,
	})
	const canary = "canary-4711"
	ctx := t.Context()
	var errs []error
	do := func(m *dedup.Message, h *handler) { errs = append(errs, d.Do(ctx, m, h.handle).Err) }
	do(message(canary, "v"), &handler{})
	do(message(canary, canary), &handler{})                      // conflict
	do(message(canary+"2", canary), fails(errors.New("no"), 9))  // parked
	do(message(strings.Repeat(canary, 200), canary), &handler{}) // too long
	twice := message(canary, "v")
	twice.Headers = append(twice.Headers, dedup.Header{Key: dedup.HeaderIdempotencyKey, Value: []byte(canary + "3")})
	do(twice, &handler{})
	if out := log.String() + fmt.Sprint(errs) + fmt.Sprint(l.whys); strings.Contains(out, canary) {
		t.Errorf("a key or payload shows in:\n%s", out)
	}
	if log.Len() == 0 {
		t.Error("nothing was logged")
	}
}

func TestHooks(t *testing.T) {
	var mu sync.Mutex
	outcomes := map[dedup.Outcome]int{}
	applied := 0
	d := newDedup(t, newStore(), &dedup.Options{Hooks: dedup.Hooks{
		Decided: func(e dedup.Event) {
			mu.Lock()
			defer mu.Unlock()
			outcomes[e.Result.Outcome]++
			if e.Scope != "orders" || e.Message == nil || e.Started.IsZero() {
				t.Errorf("got event %+v", e)
			}
		},
		Applied: func(ops int, _ time.Duration, err error) {
			mu.Lock()
			defer mu.Unlock()
			applied += ops
			if err != nil {
				t.Error(err)
			}
		},
	}})
	h := &handler{}
	d.Do(t.Context(), message("k", "v"), h.handle)
	d.Do(t.Context(), message("k", "v"), h.handle)
	d.Do(t.Context(), message("", "v"), h.handle)
	batch := func(_ context.Context, ms []*dedup.Message) []dedup.Answer { return make([]dedup.Answer, len(ms)) }
	d.DoBatch(t.Context(), []*dedup.Message{message("k", "v"), message("b", "v"), message("b", "v")}, batch)
	if outcomes[dedup.Processed] != 2 || outcomes[dedup.Duplicate] != 3 || outcomes[dedup.Unkeyed] != 1 {
		t.Errorf("got %v", outcomes)
	}
	if applied != 6 {
		t.Errorf("got %d ops applied, want 6", applied)
	}
}

func TestConcurrentCallersShareBatches(t *testing.T) {
	synctest.Test(t, testShareBatches)
}

func testShareBatches(t *testing.T) {
	s := newStore()
	s.before = func(ops []driver.Op) error {
		if len(ops) > driver.MaxBatch {
			t.Errorf("got a batch of %d", len(ops))
		}
		time.Sleep(time.Millisecond) // a disk
		return nil
	}
	d := newDedup(t, s, nil)
	var wg sync.WaitGroup
	h := &handler{}
	for i := range 200 {
		wg.Go(func() {
			for j := range 10 {
				if r := d.Do(context.Background(), message(fmt.Sprint(i, "-", j), "v"), h.handle); r.Outcome != dedup.Processed {
					t.Errorf("got %v: %v", r.Outcome, r.Err)
				}
			}
		})
	}
	wg.Wait()
	if h.runs() != 2000 {
		t.Errorf("got %d runs", h.runs())
	}
	if len(s.calls) > 400 {
		t.Errorf("got %d Applies for 4000 operations of 200 callers: they do not share batches", len(s.calls))
	}
}
