package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// slowly makes each Apply take 10 ms.
func slowly([]driver.Op, []driver.Reply) { time.Sleep(10 * time.Millisecond) }

// rounds has callers process so many batches each, with a handler that takes a
// while, and returns how many Applies that took and how long.
func rounds(t *testing.T, callers, batches int, handler time.Duration) (applies int, took time.Duration) {
	s := newStore()
	s.after = slowly
	d := newDedup(t, s, nil)
	start := time.Now()
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range batches {
				ms := []*dedup.Message{message(fmt.Sprint(caller, "a", i), "v"), message(fmt.Sprint(caller, "b", i), "v")}
				for _, r := range d.DoBatch(t.Context(), ms, func(context.Context, []*dedup.Message) []dedup.Answer {
					time.Sleep(handler)
					return make([]dedup.Answer, len(ms))
				}) {
					if r.Outcome != dedup.Processed {
						t.Errorf("got %v, %v, want processed", r.Outcome, r.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	return len(s.calls), time.Since(start)
}

// The completes of one batch and the claims of the next travel together, though
// there are but two callers, each of which is busy while the other one is answered.
func TestTwoBatchesShareApplies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches = 100
		if got, _ := rounds(t, 2, batches, time.Millisecond); got > 2*batches+10 {
			t.Errorf("got %d Applies for 2 x %d batches, want one for each, as a rule", got, batches)
		}
	})
}

// One that is always late does not keep the others from sharing Applies.
func TestManyShareAppliesBesideALateOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, each = 16, 50
		s := newStore()
		s.after = slowly
		d := newDedup(t, s, &dedup.Options{Concurrency: callers})
		var wg sync.WaitGroup
		for caller := range callers {
			takes := time.Duration(caller) * 100 * time.Microsecond
			if caller == 0 {
				takes = 15 * time.Millisecond
			}
			wg.Go(func() {
				for i := range each {
					want(t, d.Do(t.Context(), message(fmt.Sprint(caller, "-", i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
						time.Sleep(takes)
						return nil, nil
					}), dedup.Processed, true)
				}
			})
		}
		wg.Wait()
		// Two for each call, and as many as the late one has made alone.
		if got := len(s.calls); got > 160 {
			t.Errorf("got %d Applies for %d calls of each of %d callers, want about %d", got, each, callers, 3*each)
		}
	})
}

// Callers that will not come for long are not waited for.
func TestSlowHandlersAreNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches = 100
		alone := batches * (2*10*time.Millisecond + time.Second)
		if _, got := rounds(t, 1, batches, time.Second); got != alone {
			t.Errorf("one caller: got %v, want %v", got, alone)
		}
		// The two meet in some rounds, and then one waits for the other's Apply.
		if _, got := rounds(t, 2, batches, time.Second); got > alone+alone/50 {
			t.Errorf("two callers: got %v, want about %v", got, alone)
		}
	})
}

// A batch waits for the keys of several others, one after the other, and keeps
// none from them meanwhile.
func TestBatchesWithCommonKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		batch := func(start, handler time.Duration, keys ...string) func() {
			return func() {
				time.Sleep(start)
				var ms []*dedup.Message
				for _, k := range keys {
					ms = append(ms, message(k, "v"))
				}
				for i, r := range d.DoBatch(t.Context(), ms, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
					time.Sleep(handler)
					return make([]dedup.Answer, len(ms))
				}) {
					if !r.Settled() {
						t.Errorf("batch %v, key %s: got %v, %v, want it settled", keys, keys[i], r.Outcome, r.Err)
					}
				}
			}
		}
		var wg sync.WaitGroup
		wg.Go(batch(0, 10*time.Millisecond, "a", "b"))
		wg.Go(batch(0, 30*time.Millisecond, "c"))
		wg.Go(batch(time.Millisecond, time.Millisecond, "x", "a", "b", "c"))
		wg.Go(batch(2*time.Millisecond, 0, "c", "x", "y", "a"))
		wg.Wait()
	})
}

// Every answer of the store goes back to it once, when all whose it is have read it.
func TestAnswersAreRecycled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.after = slowly
		d := newDedup(t, s, nil)
		var wg sync.WaitGroup
		for caller := range 20 {
			wg.Go(func() {
				for i := range 20 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(caller+i)*time.Millisecond)
					d.DoBatch(ctx, []*dedup.Message{message(fmt.Sprint(caller, i), "v"), message(fmt.Sprint(caller, i, "b"), "v")}, (&handler{}).batched)
					cancel()
				}
			})
		}
		wg.Wait()
		if err := d.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s.recycled != len(s.calls) || s.twice {
			t.Errorf("%d of %d answers were recycled, one of them twice: %v", s.recycled, len(s.calls), s.twice)
		}
	})
}

// A store gets back what it made, and nothing else.
func TestOnlyAnswersOfTheStoreAreRecycled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.before = func([]driver.Op) error {
			if len(s.calls) == 1 {
				return errBroken
			}
			return nil
		}
		d := newDedup(t, s, nil)
		want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Processed, true)
		if got, want := s.recycled, len(s.calls)-1; got != want {
			t.Errorf("%d answers were recycled, want %d", got, want)
		}
	})
}

// Callers that queue behind an Apply share the next one, up to the most that a store
// takes.
func TestOneApplyHasAtMostMaxBatchOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		first := true
		s.before = func([]driver.Op) error {
			if first {
				first = false
				time.Sleep(time.Second)
			}
			return nil
		}
		d := newDedup(t, s, nil)
		var wg sync.WaitGroup
		for caller := range 5 {
			wg.Go(func() {
				ms := make([]*dedup.Message, driver.MaxBatch/2)
				for i := range ms {
					ms[i] = message(fmt.Sprint(caller, "/", i), "v")
				}
				for i, r := range d.DoBatch(t.Context(), ms, okAll) {
					if r.Outcome != dedup.Processed {
						t.Errorf("caller %d, message %d: got %v (err %v), want processed", caller, i, r.Outcome, r.Err)
					}
				}
			})
		}
		wg.Wait()
		shared := false
		for _, ops := range s.calls {
			shared = shared || len(ops) > driver.MaxBatch/2
			if len(ops) > driver.MaxBatch {
				t.Errorf("an Apply has %d operations, more than %d", len(ops), driver.MaxBatch)
			}
		}
		if !shared {
			t.Error("no two callers shared an Apply")
		}
	})
}
