package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// ledger notes which messages were started and decided.
type ledger struct {
	mu      sync.Mutex
	started map[*dedup.Message]int
	decided map[*dedup.Message][]dedup.Event
}

func (l *ledger) hooks() dedup.Hooks {
	l.started, l.decided = map[*dedup.Message]int{}, map[*dedup.Message][]dedup.Event{}
	return dedup.Hooks{
		Started: func(e dedup.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.started[e.Message]++
		},
		Decided: func(e dedup.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.decided[e.Message] = append(l.decided[e.Message], e)
		},
	}
}

// check holds that each message was started and decided n times.
func (l *ledger) check(t *testing.T, n int, ms ...*dedup.Message) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, m := range ms {
		if l.started[m] != n || len(l.decided[m]) != n {
			t.Errorf("message %d: started %d times, decided %d times, want %d each", i, l.started[m], len(l.decided[m]), n)
		}
	}
	if len(l.started) != len(ms) {
		t.Errorf("got %d messages, want %d", len(l.started), len(ms))
	}
}

func ok(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }

func okAll(_ context.Context, ms []*dedup.Message) []dedup.Answer {
	return make([]dedup.Answer, len(ms))
}

// However a delivery ends, it was started once and is decided once.
func TestEachDeliveryIsStartedAndDecidedOnce(t *testing.T) {
	t.Run("every way through Do", func(t *testing.T) {
		var l ledger
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Hooks: l.hooks()})
		fresh, again, conflict, unkeyed := message("a", "1"), message("a", "1"), message("a", "2"), message("", "3")
		failing, panicking, down := message("b", "1"), message("c", "1"), message("d", "1")
		want(t, d.Do(t.Context(), fresh, ok), dedup.Processed, true)
		want(t, d.Do(t.Context(), again, ok), dedup.Duplicate, true)
		want(t, d.Do(t.Context(), conflict, ok), dedup.Conflict, false)
		want(t, d.Do(t.Context(), unkeyed, ok), dedup.Unkeyed, false)
		want(t, d.Do(t.Context(), failing, func(context.Context, *dedup.Message) ([]byte, error) { return nil, errBroken }), dedup.Failed, false)
		want(t, d.Do(t.Context(), panicking, func(context.Context, *dedup.Message) ([]byte, error) { panic("no") }), dedup.Failed, false)
		s.before = func([]driver.Op) error { return errBroken }
		want(t, d.Do(t.Context(), down, ok), dedup.Unavailable, false)
		l.check(t, 1, fresh, again, conflict, unkeyed, failing, panicking, down)
	})
	t.Run("a handler that ends its goroutine", func(t *testing.T) {
		var l ledger
		d := newDedup(t, newStore(), &dedup.Options{Hooks: l.hooks()})
		one, two := message("a", "1"), message("b", "1")
		var wg sync.WaitGroup
		wg.Go(func() {
			d.Do(context.Background(), one, func(context.Context, *dedup.Message) ([]byte, error) { runtime.Goexit(); return nil, nil })
		})
		wg.Go(func() {
			d.DoBatch(context.Background(), []*dedup.Message{two}, func(context.Context, []*dedup.Message) []dedup.Answer { runtime.Goexit(); return nil })
		})
		wg.Wait()
		l.check(t, 1, one, two)
	})
	t.Run("a batch with duplicates, larger than one claim", func(t *testing.T) {
		var l ledger
		d := newDedup(t, newStore(), &dedup.Options{Hooks: l.hooks()})
		ms := make([]*dedup.Message, driver.MaxBatch+500)
		for i := range ms {
			ms[i] = message(fmt.Sprint(i%700), "v")
		}
		ms[3] = message("", "v")
		ms[5] = message("4", "another payload") // waits for the other, and then conflicts
		d.DoBatch(t.Context(), ms, okAll)
		l.check(t, 1, ms...)
	})
	t.Run("after Shutdown", func(t *testing.T) {
		var l ledger
		d := newDedup(t, newStore(), &dedup.Options{Hooks: l.hooks()})
		if err := d.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		one, two := message("a", "1"), message("b", "1")
		d.Do(t.Context(), one, ok)
		d.DoBatch(t.Context(), []*dedup.Message{two}, okAll)
		l.check(t, 1, one, two)
	})
}

func TestStartedComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		begin := time.Now()
		note := func(name string) func(dedup.Event) {
			return func(e dedup.Event) {
				events = append(events, fmt.Sprintf("%s %v %v", name, e.Scope, e.Started.Sub(begin)))
			}
		}
		d := newDedup(t, newStore(), &dedup.Options{Hooks: dedup.Hooks{Started: note("started"), Decided: note("decided")}})
		time.Sleep(time.Second)
		d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			events = append(events, "handler")
			time.Sleep(time.Minute)
			return nil, nil
		})
		if got, want := fmt.Sprint(events), "[started orders 1s handler decided orders 1s]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// Took tells a handler that ran, however short, from none.
func TestTookTellsWhetherTheHandlerRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // where time does not pass by itself
		var l ledger
		d := newDedup(t, newStore(), &dedup.Options{Hooks: l.hooks()})
		first, second := message("k", "v"), message("k", "v")
		d.Do(t.Context(), first, ok)
		d.Do(t.Context(), second, ok)
		if ran, skipped := l.decided[first][0].Took, l.decided[second][0].Took; ran <= 0 || skipped != 0 {
			t.Errorf("got Took %v and %v, want more than 0 and 0", ran, skipped)
		}
	})
}

func TestAppliedOfABatchThatWasAnsweredInPart(t *testing.T) {
	var errs []error
	s := newStore()
	s.after = loseReplies(driver.OpClaim, 1)
	d := newDedup(t, s, &dedup.Options{Hooks: dedup.Hooks{Applied: func(_ int, _ time.Duration, err error) { errs = append(errs, err) }}})
	d.DoBatch(t.Context(), []*dedup.Message{message("a", "v"), message("b", "v")}, okAll)
	if len(errs) != 3 || errors.Join(errs...) != nil {
		t.Errorf("got %v, want three calls without an error", errs)
	}
}

func TestAppliedTellsWhetherTheStoreAnswered(t *testing.T) {
	var errs []error
	s := newStore()
	d := newDedup(t, s, &dedup.Options{Hooks: dedup.Hooks{Applied: func(ops int, _ time.Duration, err error) {
		if ops != 1 {
			t.Errorf("got %d operations, want 1", ops)
		}
		errs = append(errs, err)
	}}})
	d.Do(t.Context(), message("a", "v"), ok)
	if len(errs) != 2 || errs[0] != nil || errs[1] != nil {
		t.Fatalf("got %v, want two calls without errors", errs)
	}
	errs = nil
	s.after = loseReplies(driver.OpClaim, 1) // the next try is answered
	d.Do(t.Context(), message("b", "v"), ok)
	if len(errs) != 3 || !errors.Is(errs[0], errBroken) || errs[1] != nil {
		t.Errorf("got %v, want the error of the claim whose reply was lost, and then none", errs)
	}
	errs = nil
	s.before = func([]driver.Op) error { return errBroken }
	d.Do(t.Context(), message("c", "v"), ok)
	if len(errs) == 0 || !errors.Is(errs[0], errBroken) {
		t.Errorf("got %v, want the error of Apply", errs)
	}
}
