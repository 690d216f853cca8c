package dedup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// The answer to a claim may come when its lease is over, or nearly.
func TestLateAnswerToAClaim(t *testing.T) {
	for _, delay := range []time.Duration{29 * time.Second, 33 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			a, b := newDedup(t, s, nil), newDedup(t, s, nil)
			long := make(chan struct{})
			go func() { // keeps the renewer of a busy
				defer close(long)
				a.Do(context.Background(), message("other", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					time.Sleep(2 * time.Minute)
					return nil, nil
				})
			}()
			synctest.Wait()
			s.after = func(ops []driver.Op, _ []driver.Reply) {
				if ops[0].Kind == driver.OpClaim && ops[0].ID == dedup.NewID("orders", "k") {
					s.mu.Lock()
					s.after = nil
					s.mu.Unlock()
					time.Sleep(delay)
				}
			}
			running := 0
			run := func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				if running++; running > 1 {
					t.Error("two handlers at once")
				}
				defer func() { running-- }()
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
				return nil, ctx.Err()
			}
			late := make(chan dedup.Result)
			go func() { late <- a.Do(context.Background(), message("k", "v"), run) }()
			time.Sleep(delay + 500*time.Millisecond)
			if _, err := b.Settle(t.Context(), message("k", "v"), run); err != nil {
				t.Error(err)
			}
			r := <-late
			if held := delay < 30*time.Second; held && r.Outcome != dedup.Processed || !held && r.Outcome != dedup.Busy {
				t.Errorf("after %v: got %v: %v", delay, r.Outcome, r.Err)
			}
			<-long
		})
	}
}

func TestEndedContextStartsNothing(t *testing.T) {
	var l letters
	d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send, OnStale: dedup.PolicyPark})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := &handler{}
	want(t, d.Do(ctx, message("k", "v"), h.handle), dedup.Unavailable, false)
	want(t, d.Do(ctx, message("", "v"), h.handle), dedup.Unavailable, false)
	want(t, d.DoBatch(ctx, []*dedup.Message{message("k", "v")}, h.batched)[0], dedup.Unavailable, false)
	if h.runs() > 0 || len(l.whys) > 0 {
		t.Errorf("got %d runs, %d dead letters", h.runs(), len(l.whys))
	}
}

// noVouch is a store that cannot say how far back it remembers.
type noVouch struct{ *faulty }

func (noVouch) Vouch(context.Context) (driver.Vouch, error) { return driver.Vouch{}, errBroken }

func TestStoreThatCannotVouch(t *testing.T) {
	h := &handler{}
	d := newDedup(t, noVouch{newStore()}, nil)
	want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
	if !h.claim(1).Stale {
		t.Error("processed without the flag")
	}
	var l letters
	strict := newDedup(t, noVouch{newStore()}, &dedup.Options{DeadLetter: l.send, OnStale: dedup.PolicyPark})
	want(t, strict.Do(t.Context(), message("k", "v"), h.handle), dedup.Unavailable, false)
	if len(l.whys) > 0 {
		t.Error("a store's failure parked a message")
	}
}

// A handler that outlived its timeout, and its lease, has no say in the message
// any more: another may have processed it.
func TestNoDeadLetterWithoutTheClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var l letters
		o := &dedup.Options{DeadLetter: l.send, MaxAttempts: 1, HandlerTimeout: time.Minute}
		a := newDedup(t, s, o)
		b := newDedup(t, s, &dedup.Options{DeadLetter: l.send, MaxAttempts: 5})
		stuck := make(chan dedup.Result)
		go func() {
			stuck <- a.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(5 * time.Minute)
				return nil, errBroken
			})
		}()
		synctest.Wait()
		r, err := b.Settle(t.Context(), message("k", "v"), (&handler{}).handle)
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, dedup.Processed, true)
		want(t, <-stuck, dedup.Failed, false)
		if len(l.whys) > 0 {
			t.Errorf("a processed message was dead-lettered: %v", l.whys)
		}
	})
}

func TestBatchIsRecordedBeforeItsDeadLetters(t *testing.T) {
	s := newStore()
	recorded := false
	d := newDedup(t, s, &dedup.Options{DeadLetter: func(ctx context.Context, _ *dedup.Message, _ error) error {
		rec, err := s.Lookup(ctx, dedup.NewID("orders", "ok"))
		recorded = err == nil && rec.State == driver.StateDone
		return err
	}})
	h := &handler{}
	rs := d.DoBatch(t.Context(), []*dedup.Message{message("", "v"), message("ok", "v")}, h.batched)
	want(t, rs[0], dedup.Unkeyed, true)
	want(t, rs[1], dedup.Processed, true)
	if !recorded {
		t.Error("a dead letter was awaited before the handler's result was recorded")
	}
}

func TestManyDeadLettersOfOneBatch(t *testing.T) {
	var l letters
	d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send})
	var ms []*dedup.Message
	for range 300 {
		ms = append(ms, message("", "v"))
	}
	for _, r := range d.DoBatch(t.Context(), ms, (&handler{}).batched) {
		want(t, r, dedup.Unkeyed, true)
	}
	if len(l.whys) != 300 {
		t.Errorf("got %d dead letters", len(l.whys))
	}
}

func TestDeadLetterThatIsRefusedForGoodHalts(t *testing.T) {
	l := letters{err: dedup.Permanent(errors.New("too large"))}
	d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send})
	for _, m := range []*dedup.Message{message("", "v"), message("k", "v")} {
		r := d.Do(t.Context(), m, fails(dedup.Permanent(errBroken), 1).handle)
		if r.Settled() || !r.Halt {
			t.Errorf("got %v, settled %v, halt %v", r.Outcome, r.Settled(), r.Halt)
		}
	}
}

// A store that says it never answers again halts. Its answer to the record of a finished
// handler is not awaited for ever.
func TestStoreThatFailedForGoodHalts(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	gone := func([]driver.Op) error { return dedup.Permanent(errors.New("poisoned")) }
	h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.before = gone
		return nil, nil
	}}
	for _, outcome := range []dedup.Outcome{dedup.Uncertain, dedup.Unavailable} {
		r := d.Do(t.Context(), message(outcome.String(), "v"), h.handle)
		want(t, r, outcome, false)
		if !r.Halt || !errors.Is(r.Err, dedup.ErrStore) {
			t.Errorf("got halt %v, err %v", r.Halt, r.Err)
		}
	}
}

type panicky struct{}

func (*panicky) Error() string { panic("no text") }

// hollow is an error of which a nil pointer is easily returned.
type hollow struct{ inner error }

func (*hollow) Error() string   { return "hollow" }
func (e *hollow) Unwrap() error { return e.inner }

// loudLog is a slog.Handler that panics.
type loudLog struct{ slog.Handler }

func (loudLog) Enabled(context.Context, slog.Level) bool  { return true }
func (l loudLog) WithAttrs([]slog.Attr) slog.Handler      { return l }
func (loudLog) Handle(context.Context, slog.Record) error { panic("bang") }

// Whatever a callback does, the other messages of its batch are recorded, and
// the Deduplicator goes on.
func TestPanicsOfCallbacks(t *testing.T) {
	bang := func() { panic("bang") }
	var l letters
	for name, o := range map[string]*dedup.Options{
		"Started":    {Hooks: dedup.Hooks{Started: func(dedup.Event) { bang() }}},
		"Decided":    {Hooks: dedup.Hooks{Decided: func(dedup.Event) { bang() }}},
		"Applied":    {Hooks: dedup.Hooks{Applied: func(int, time.Duration, error) { bang() }}},
		"Backoff":    {Backoff: func(int) time.Duration { bang(); return 0 }},
		"DeadLetter": {DeadLetter: func(context.Context, *dedup.Message, error) error { bang(); return nil }},
		"error":      {DeadLetter: l.send},
		"hollow":     {DeadLetter: func(context.Context, *dedup.Message, error) error { var e *hollow; return e }},
		"Logger":     {Logger: slog.New(loudLog{slog.DiscardHandler})},
		"Fingerprint": {Fingerprint: func(m *dedup.Message) dedup.Fingerprint {
			if string(m.Value) == "bad" {
				bang()
			}
			return dedup.PayloadFingerprint(m)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDedup(t, newStore(), o)
			h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
				if string(m.Value) == "bad" {
					return nil, dedup.Permanent((*panicky)(nil))
				}
				return nil, nil
			}}
			rs := d.DoBatch(t.Context(), []*dedup.Message{message("good", "v"), message("bad", "bad"), message("fine", "v")}, h.batched)
			want(t, rs[0], dedup.Processed, true)
			want(t, rs[2], dedup.Processed, true)
			if rs[1].Settled() {
				t.Errorf("got %v settled", rs[1].Outcome)
			}
			want(t, d.Do(t.Context(), message("good", "v"), h.handle), dedup.Duplicate, true)
		})
	}
	t.Run("store", func(t *testing.T) {
		s := newStore()
		s.before = func([]driver.Op) error { panic("bang") }
		d := newDedup(t, s, nil)
		loud := newDedup(t, s, &dedup.Options{Logger: slog.New(loudLog{slog.DiscardHandler})})
		want(t, loud.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Unavailable, false)
		want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Unavailable, false)
		s.mu.Lock()
		s.before = nil
		s.mu.Unlock()
		want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Processed, true)
	})
	t.Run("nil message", func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		func() {
			defer func() { _ = recover() }()
			d.DoBatch(t.Context(), []*dedup.Message{message("k", "v"), nil}, (&handler{}).batched)
			t.Error("took a nil message")
		}()
		want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Processed, true)
	})
}

func TestBackoffBounds(t *testing.T) {
	for _, c := range []struct{ first, limit time.Duration }{
		{time.Second, math.MaxInt64}, {time.Second, -1}, {-1, time.Second}, {0, 0}, {time.Hour, time.Second},
	} {
		for _, attempt := range []int{-1, 0, 1, 2, 63, 64, math.MaxInt} {
			if d := dedup.Backoff(c.first, c.limit)(attempt); d < 0 || d > max(c.limit, 0) {
				t.Errorf("Backoff(%v, %v)(%d) = %v", c.first, c.limit, attempt, d)
			}
		}
	}
}

func TestUnkeyedHandlerSteers(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		o     dedup.Options
		halt  bool
		after time.Duration
	}{
		"RetryAfter":         {dedup.RetryAfter(errBroken, time.Hour), dedup.Options{}, false, time.Hour},
		"Permanent":          {dedup.Permanent(errBroken), dedup.Options{}, true, 0},
		"Permanent, parking": {dedup.Permanent(errBroken), dedup.Options{DeadLetter: (&letters{}).send}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			c.o.OnUnkeyed = dedup.PolicyProcess
			d := newDedup(t, newStore(), &c.o)
			r := d.Do(t.Context(), message("", "v"), fails(c.err, 1).handle)
			if parks := c.o.DeadLetter != nil; r.Halt != c.halt || r.Settled() != parks || c.after > 0 && r.RetryAfter != c.after {
				t.Errorf("got %v, halt %v, settled %v, after %v", r.Outcome, r.Halt, r.Settled(), r.RetryAfter)
			}
		})
	}
}

func TestDeadlineOfTheCallerUsesUpAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l letters
		d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send, MaxAttempts: 3})
		h := &handler{script: func(_ int, ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		for range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			d.Do(ctx, message("k", "v"), h.handle)
			cancel()
		}
		if h.runs() != 3 || len(l.whys) != 1 {
			t.Errorf("got %d runs, %d dead letters, want 3 and 1", h.runs(), len(l.whys))
		}
	})
}

// Of a key that another works on, a batch waits for the first delivery only.
func TestBatchSharesTheFateOfALaterDelivery(t *testing.T) {
	d := newDedup(t, newStore(), &dedup.Options{OnConflict: dedup.PolicyHalt})
	h := &handler{}
	rs := d.DoBatch(t.Context(), []*dedup.Message{message("k", "a"), message("k", "b"), message("k", "b")}, h.batched)
	want(t, rs[0], dedup.Processed, true)
	want(t, rs[1], dedup.Conflict, false)
	want(t, rs[2], dedup.Conflict, false)
}

func TestShutdownDoesNotWaitForAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d, err := dedup.New(s, "orders", dedup.HeaderKey(), &dedup.Options{Lease: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		done := make(chan dedup.Result, 1)
		go func() {
			done <- d.Do(context.Background(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				s.mu.Lock()
				s.before = func([]driver.Op) error { <-hang; return errBroken }
				s.mu.Unlock()
				<-ctx.Done()
				return nil, ctx.Err()
			})
		}()
		time.Sleep(1500 * time.Millisecond) // an extend hangs
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := d.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got err %v", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("Shutdown took %v", took)
		}
		close(hang)
		want(t, <-done, dedup.Failed, false)
	})
}

func TestEveryHaltIsLogged(t *testing.T) {
	var log bytes.Buffer
	s := newStore()
	d := newDedup(t, s, &dedup.Options{Logger: slog.New(slog.NewTextHandler(&log, nil)), OnStoreError: dedup.StoreHalt})
	for i := range 3 {
		d.Do(t.Context(), message(fmt.Sprint(i), "v"), fails(dedup.Permanent(errBroken), 1).handle)
	}
	s.mu.Lock()
	s.before = func([]driver.Op) error { return errBroken }
	s.mu.Unlock()
	d.Do(t.Context(), message("k", "v"), (&handler{}).handle)
	if got := strings.Count(log.String(), "it halts"); got != 4 {
		t.Errorf("got %d halts logged, want 4:\n%s", got, log.String())
	}
}

// A store that refuses some operations and answers others is told of once a second.
func TestStoreThatRefusesSomeIsToldOfRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var log strings.Builder
		d := newDedup(t, s, &dedup.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		d.Do(t.Context(), message("known", "v"), ok)
		s.before = func(ops []driver.Op) error {
			if ops[0].Kind == driver.OpClaim && ops[0].ID != dedup.NewID("orders", "known") {
				return errBroken
			}
			return nil
		}
		for range 20 {
			d.Do(t.Context(), message("new", "v"), ok)
			d.Do(t.Context(), message("known", "v"), ok)
		}
		if got := strings.Count(log.String(), "the store"); got == 0 || got > 10 {
			t.Errorf("got %d lines of 20 changes, want some and no more than one a second:\n%s", got, log.String())
		}
	})
}

// Of one Apply, some operations are refused: its other answers do not hide that.
func TestStoreThatRefusesPartOfABatchIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var log strings.Builder
		d := newDedup(t, s, &dedup.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		refused := dedup.NewID("orders", "refused")
		s.after = func(ops []driver.Op, replies []driver.Reply) {
			for i := range ops {
				if ops[i].ID == refused {
					replies[i] = driver.Reply{Err: errBroken}
				}
			}
		}
		ms := []*dedup.Message{message("fine", "v"), message("refused", "v")}
		d.DoBatch(t.Context(), ms, okAll)
		if got := strings.Count(log.String(), "the store answers only some operations"); got != 1 || !strings.Contains(log.String(), errBroken.Error()) {
			t.Errorf("got %d lines, want one that names %q:\n%s", got, errBroken, log.String())
		}
	})
}
