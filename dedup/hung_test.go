package dedup_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// logged is a Logger that many goroutines write to.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logged) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: level}))
}

// count wants n lines with all the parts, and returns the last.
func (l *logged) count(t *testing.T, n int, parts ...string) (last string) {
	t.Helper()
	got := 0
	for line := range strings.Lines(l.String()) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			got++
			last = line
		}
	}
	if got != n {
		t.Errorf("got %d lines with %q, want %d:\n%s", got, parts, n, l)
	}
	return last
}

// hangs is a handler that ignores its context, by a name to look for in its stack.
//
//go:noinline
func hangs(until <-chan struct{}) { <-until }

// A handler that ignores its context and outlives its timeout and its lease keeps its
// key from nobody, in its own process too. It keeps its slot.
func TestHungHandlerIsTakenOverInItsProcess(t *testing.T) {
	for _, batch := range []bool{false, true} {
		t.Run(fmt.Sprint("batch ", batch), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l logged
				var mu sync.Mutex
				var changes []int
				d := newDedup(t, newStore(), &dedup.Options{
					Concurrency: 2, HandlerTimeout: time.Minute, Lease: 10 * time.Second, Logger: l.logger(slog.LevelInfo),
					Hooks: dedup.Hooks{Hung: func(change int) { mu.Lock(); defer mu.Unlock(); changes = append(changes, change) }},
				})
				busy := make(chan struct{})
				defer close(busy)
				for i := range 3 { // another Deduplicator's handlers
					e := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: -1})
					go e.Do(context.Background(), message(fmt.Sprint(i), "v"), func(context.Context, *dedup.Message) ([]byte, error) { <-busy; return nil, nil })
				}
				until, ended := make(chan struct{}), make(chan dedup.Result, 1)
				go func() {
					if batch {
						ended <- d.DoBatch(context.Background(), []*dedup.Message{message("k", "v"), message("beside", "v")}, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
							hangs(until)
							return make([]dedup.Answer, len(ms))
						})[0]
						return
					}
					ended <- d.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
						hangs(until)
						return nil, nil
					})
				}()
				synctest.Wait()
				begin := time.Now()
				h := &handler{}
				r, err := d.Settle(t.Context(), message("k", "v"), h.handle)
				if err != nil || r.Outcome != dedup.Processed || !h.claim(1).Ambiguous {
					t.Fatalf("got %v, %v, claim %+v; want it processed and ambiguous", r.Outcome, err, h.claim(1))
				}
				if took := time.Since(begin); took < time.Minute || took > 75*time.Second {
					t.Errorf("it was taken over after %v, want HandlerTimeout and Lease", took)
				}
				synctest.Wait()
				line := l.count(t, 1, "has outlived HandlerTimeout", dedup.NewID("orders", "k").String())
				if strings.Count(line, "dedup.(*run).handle(") != 1 || !strings.Contains(line, "dedup_test.hangs(") {
					t.Errorf("got %s, want the stack of the handler, and no other", line)
				}
				begin = time.Now() // one of two slots is taken
				var wg sync.WaitGroup
				for i := range 2 {
					wg.Go(func() {
						d.Do(t.Context(), message(fmt.Sprint("other", i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
							time.Sleep(time.Second)
							return nil, nil
						})
					})
				}
				wg.Wait()
				if took := time.Since(begin); took != 2*time.Second {
					t.Errorf("two handlers of a second took %v beside the one that hangs, want 2s", took)
				}
				close(until)
				want(t, <-ended, dedup.Uncertain, false)
				mu.Lock()
				defer mu.Unlock()
				if fmt.Sprint(changes) != "[1 -1]" {
					t.Errorf("the hook Hung got %v, want 1 and -1", changes)
				}
			})
		})
	}
}

// A batch handler that hangs keeps the keys of those messages of its batch from nobody
// either that a policy refused.
func TestHungBatchKeepsNoRefusedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{HandlerTimeout: time.Minute, Lease: 10 * time.Second, OnStale: dedup.PolicyHalt})
		until, ended := make(chan struct{}), make(chan struct{})
		old := message("refused", "v")
		old.Published = time.Now().Add(-1000 * time.Hour)
		go func() {
			defer close(ended)
			d.DoBatch(context.Background(), []*dedup.Message{message("k", "v"), old}, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
				hangs(until)
				return make([]dedup.Answer, len(ms))
			})
		}()
		synctest.Wait()
		begin := time.Now()
		other := newDedup(t, s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if r, err := other.Settle(ctx, message("refused", "v"), ok); err != nil || r.Outcome != dedup.Processed {
			t.Errorf("got %v, %v, want it processed", r.Outcome, err)
		}
		if took := time.Since(begin); took > 75*time.Second {
			t.Errorf("its key was free after %v, want HandlerTimeout and Lease", took)
		}
		close(until)
		<-ended
	})
}

// The late result of a hung handler is recorded if nobody has taken over.
func TestHungHandlerMayEndUndisturbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: time.Second, Lease: time.Second})
		want(t, d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(time.Hour)
			return []byte("late"), nil
		}), dedup.Processed, true)
		want(t, d.Do(t.Context(), message("k", "v"), ok), dedup.Duplicate, true)
	})
}

// Many handlers that hang are one line a second, and a count.
func TestManyHungHandlersAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logged
		var mu sync.Mutex
		hung := 0
		d := newDedup(t, newStore(), &dedup.Options{
			Concurrency: 100, HandlerTimeout: time.Second, Lease: time.Second, Logger: l.logger(slog.LevelInfo),
			Hooks: dedup.Hooks{Hung: func(change int) { mu.Lock(); defer mu.Unlock(); hung += max(change, 0) }},
		})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				d.Do(context.Background(), message(fmt.Sprint(i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					time.Sleep(time.Minute)
					return nil, nil
				})
			})
		}
		wg.Wait()
		l.count(t, 1, "has outlived HandlerTimeout")
		if hung != 100 {
			t.Errorf("got %d hung handlers, want 100", hung)
		}
	})
}
