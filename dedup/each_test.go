package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

func messages(keys ...string) (ms []*dedup.Message) {
	for _, key := range keys {
		ms = append(ms, message(key, "v"))
	}
	return ms
}

// warm tells d that handlers take so long, in a bubble.
func warm(t *testing.T, d *dedup.Deduplicator, took time.Duration) {
	t.Helper()
	want(t, d.Do(t.Context(), message("warm", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
		time.Sleep(took)
		return nil, nil
	}), dedup.Processed, true)
}

func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var l letters
		d := newDedup(t, s, &dedup.Options{DeadLetter: l.send, OnUnkeyed: dedup.PolicyProcess})
		warm(t, d, 0)
		s.calls = nil
		cause := errors.New("no")
		var order []dedup.Key
		h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
			order = append(order, m.Claim.Key)
			switch m.Claim.Key {
			case "fails":
				return nil, cause
			case "poison":
				return nil, dedup.Permanent(cause)
			case "panics":
				panic("no")
			}
			return []byte("result of " + m.Claim.Key), nil
		}}
		ms := messages("a", "warm", "fails", "a", "panics", "", "poison", "b", "too many")
		rs := d.Transport().DoEach(t.Context(), ms, h.handle)
		if len(rs) != 8 {
			t.Fatalf("got %d results, want those of the first 8", len(rs))
		}
		for i, c := range []struct {
			outcome dedup.Outcome
			settled bool
			cause   error
		}{
			{dedup.Processed, true, nil}, {dedup.Duplicate, true, nil}, {dedup.Failed, false, cause}, {dedup.Duplicate, true, nil},
			{dedup.Failed, false, dedup.ErrPanic}, {dedup.Unkeyed, true, nil}, {dedup.Parked, true, cause}, {dedup.Processed, true, nil},
		} {
			if r := rs[i]; r.Outcome != c.outcome || r.Settled() != c.settled || c.cause != nil && !errors.Is(r.Err, c.cause) {
				t.Errorf("message %d: got %v, settled %v (%v), want %v, %v, %v", i, r.Outcome, r.Settled(), r.Err, c.outcome, c.settled, c.cause)
			}
		}
		if string(rs[3].Value) != "result of a" || string(rs[7].Value) != "result of b" {
			t.Errorf("got values %q and %q", rs[3].Value, rs[7].Value)
		}
		if got := []dedup.Key{"a", "fails", "panics", "", "poison", "b"}; !slices.Equal(order, got) {
			t.Errorf("got runs of %q, want %q", order, got)
		}
		if len(s.calls) != 3 || len(l.whys) != 1 {
			t.Errorf("got %d Applies and %d dead letters, want 3, the claims, the records and what was parked, and 1", len(s.calls), len(l.whys))
		}
		if got := d.Transport().DoEach(t.Context(), nil, h.handle); len(got) != 0 {
			t.Errorf("got %d results for no messages", len(got))
		}
	})
}

// How many go together is by the time that handlers have taken.
func TestEachTakesWhatIsDoneInAMoment(t *testing.T) {
	for took, want := range map[time.Duration]int{0: 8, 200 * time.Microsecond: 5, time.Millisecond: 1, time.Minute: 1} {
		synctest.Test(t, func(t *testing.T) {
			d := newDedup(t, newStore(), nil)
			h := &handler{}
			if got := len(d.Transport().DoEach(t.Context(), messages("a", "b"), h.handle)); got != 1 {
				t.Errorf("got %d at first, want 1: nobody knows how long a handler takes", got)
			}
			d = newDedup(t, newStore(), nil)
			warm(t, d, took)
			if got := len(d.Transport().DoEach(t.Context(), messages("1", "2", "3", "4", "5", "6", "7", "8", "9"), h.handle)); got != want {
				t.Errorf("handlers take %v: got %d, want %d", took, got, want)
			}
		})
	}
}

// Each handler has its own time.
func TestEachTimesOutAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: 5 * time.Millisecond})
		warm(t, d, 0)
		start := time.Now()
		rs := d.Transport().DoEach(t.Context(), messages("a", "b", "c", "d"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Key == "b" {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			time.Sleep(time.Millisecond)
			return nil, context.Cause(ctx)
		})
		for i, outcome := range []dedup.Outcome{dedup.Processed, dedup.Failed, dedup.Processed, dedup.Processed} {
			if rs[i].Outcome != outcome {
				t.Errorf("message %d: got %v (%v), want %v", i, rs[i].Outcome, rs[i].Err, outcome)
			}
		}
		if !errors.Is(rs[1].Err, dedup.ErrTimeout) || time.Since(start) != 8*time.Millisecond {
			t.Errorf("got %v after %v", rs[1].Err, time.Since(start))
		}
	})
}

// While one handler takes long, the messages before it are recorded, and those behind it
// are given back as if they had never been tried.
func TestEachDoesNotWaitForTheSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var l letters
		took := make(map[dedup.Key]time.Duration)
		d := newDedup(t, s, &dedup.Options{DeadLetter: l.send, HandlerTimeout: time.Minute, Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
			took[e.Message.Claim.Key] = e.Took
		}}})
		warm(t, d, 0)
		other := newDedup(t, s, nil) // of another process
		h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
			switch m.Claim.Key {
			case "a":
				time.Sleep(time.Millisecond)
			case "fails":
				return nil, errors.New("no")
			case "poison":
				return nil, dedup.Permanent(errors.New("no"))
			case "hangs": // beyond its timeout
				time.Sleep(time.Hour)
			}
			return []byte("a result"), nil
		}}
		done := make(chan []dedup.Result)
		go func() {
			done <- d.Transport().DoEach(context.Background(), messages("a", "fails", "poison", "hangs", "b", "warm", "c", ""), h.handle)
		}()
		time.Sleep(time.Minute / 2)
		for _, c := range []struct {
			key     dedup.Key
			outcome dedup.Outcome
		}{{"a", dedup.Duplicate}, {"fails", dedup.Processed}, {"poison", dedup.AlreadyParked}, {"hangs", dedup.Busy}, {"b", dedup.Processed}} {
			again := &handler{}
			if r := other.Do(t.Context(), message(string(c.key), "v"), again.handle); r.Outcome != c.outcome {
				t.Errorf("%s meanwhile: got %v (%v), want %v", c.key, r.Outcome, r.Err, c.outcome)
			}
			if c.key == "b" && (again.claim(1).Attempt != 1 || again.claim(1).Ambiguous) {
				t.Errorf("b: got %+v, want a first attempt", again.claim(1))
			}
		}
		want(t, d.Do(t.Context(), message("a", "v"), h.handle), dedup.Duplicate, true) // in this process too
		time.Sleep(time.Minute)
		want(t, other.Do(t.Context(), message("hangs", "v"), (&handler{}).handle), dedup.Processed, true)
		rs := <-done
		for i, c := range []struct {
			outcome dedup.Outcome
			settled bool
		}{
			{dedup.Processed, true}, {dedup.Failed, false}, {dedup.Parked, true}, {dedup.Uncertain, false},
			{dedup.Unavailable, false}, {dedup.Duplicate, true}, {dedup.Unavailable, false}, {dedup.Unkeyed, true},
		} {
			if rs[i].Outcome != c.outcome || rs[i].Settled() != c.settled {
				t.Errorf("message %d: got %v, settled %v (%v), want %v, %v", i, rs[i].Outcome, rs[i].Settled(), rs[i].Err, c.outcome, c.settled)
			}
		}
		if r := rs[4]; r.RetryAfter != 0 || r.Halt {
			t.Errorf("got retry after %v, halt %v, want it at once", r.RetryAfter, r.Halt)
		}
		if len(l.whys) != 2 {
			t.Errorf("got dead letters for %v, want one for poison, and one for no key", l.whys)
		}
		if took["hangs"] != time.Hour || took["c"] != 0 {
			t.Errorf("got handlers of %v", took)
		}
		if got := len(d.Transport().DoEach(t.Context(), messages("late", "other"), h.handle)); got != 1 {
			t.Errorf("got %d at once after that, want 1", got)
		}
	})
}

// A message behind a Halt is not run, be it the handler's or a policy's.
func TestEachStopsAtAHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{OnConflict: dedup.PolicyHalt})
		warm(t, d, 0)
		h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Key == "halts" {
				return nil, dedup.Permanent(errors.New("no dead letters"))
			}
			return nil, nil
		}}
		for _, halts := range []*dedup.Message{message("halts", "v"), message("warm", "other")} {
			runs := h.runs()
			rs := d.Transport().DoEach(t.Context(), []*dedup.Message{message("a"+string(halts.Value), "v"), halts, message("b", "v")}, h.handle)
			want(t, rs[0], dedup.Processed, true)
			if !rs[1].Halt || rs[2].Outcome != dedup.Unavailable || rs[2].Halt || rs[2].RetryAfter != 0 {
				t.Errorf("got %v, halt %v, and then %v, halt %v", rs[1].Outcome, rs[1].Halt, rs[2].Outcome, rs[2].Halt)
			}
			rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "b"))
			if err != nil || rec.State != driver.StateReleased || rec.Attempt != 0 || rec.Ambiguous || h.runs() > runs+2 {
				t.Errorf("got record %+v, err %v, %d runs; want it released, uncounted, not run", rec, err, h.runs())
			}
		}
	})
}

// Nobody waits for the dead letters of those that have run.
func TestEachDeadLettersBeside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		slow := func(context.Context, *dedup.Message, error) error { time.Sleep(2 * time.Second); return nil }
		d := newDedup(t, s, &dedup.Options{DeadLetter: slow, Concurrency: 1})
		warm(t, d, 0)
		start := time.Now()
		done := make(chan []dedup.Result)
		go func() {
			done <- d.Transport().DoEach(context.Background(), messages("poison", "a", "b"), func(_ context.Context, m *dedup.Message) ([]byte, error) {
				if m.Claim.Key == "poison" {
					return nil, dedup.Permanent(errors.New("no"))
				}
				time.Sleep(20 * time.Millisecond)
				return nil, nil
			})
		}()
		synctest.Wait()
		want(t, d.Do(t.Context(), message("the slot", "v"), (&handler{}).handle), dedup.Processed, true)
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("the slot was free after %v, want 20ms", took)
		}
		synctest.Wait()
		want(t, newDedup(t, s, nil).Do(t.Context(), message("a", "v"), (&handler{}).handle), dedup.Duplicate, true)
		rs := <-done
		want(t, rs[0], dedup.Parked, true)
		want(t, rs[1], dedup.Processed, true)
		want(t, rs[2], dedup.Unavailable, false)
	})
}

// Nor is what waits for its key behind a Halt.
func TestEachStartsNothingLaterBehindAHalt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		warm(t, d, 0)
		h := &handler{script: func(run int, _ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Key == "halts" {
				return nil, dedup.Permanent(errors.New("no dead letters"))
			}
			time.Sleep(100 * time.Millisecond)
			return nil, errors.New("fails")
		}}
		done := make(chan dedup.Result)
		go func() { done <- d.Do(context.Background(), message("b", "v"), h.handle) }()
		synctest.Wait()
		rs := d.Transport().DoEach(t.Context(), messages("halts", "b"), h.handle)
		want(t, rs[1], dedup.Unavailable, false)
		want(t, <-done, dedup.Failed, false)
		if !rs[0].Halt || h.runs() != 2 {
			t.Errorf("got halt %v and %d runs, want 2", rs[0].Halt, h.runs())
		}
	})
}

// A handler that ends its goroutine takes no other with it.
func TestEachGoexit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		outcomes := map[dedup.Key]dedup.Outcome{}
		d := newDedup(t, s, &dedup.Options{Concurrency: 1, Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
			outcomes[e.Message.Claim.Key] = e.Result.Outcome
		}}})
		warm(t, d, 0)
		var wg sync.WaitGroup
		wg.Go(func() {
			d.Transport().DoEach(context.Background(), messages("a", "exits", "b"), func(_ context.Context, m *dedup.Message) ([]byte, error) {
				if m.Claim.Key == "exits" {
					runtime.Goexit()
				}
				return nil, nil
			})
		})
		wg.Wait()
		if outcomes["a"] != dedup.Processed || outcomes["exits"] != dedup.Failed || outcomes["b"] != dedup.Unavailable {
			t.Errorf("got %v", outcomes)
		}
		h := &handler{}
		want(t, d.Do(t.Context(), message("a", "v"), h.handle), dedup.Duplicate, true)
		want(t, d.Do(t.Context(), message("b", "v"), h.handle), dedup.Processed, true)
		if c := h.claim(1); c.Attempt != 1 || c.Ambiguous {
			t.Errorf("got %+v, want a first attempt", c)
		}
	})
}

// The claim that is lost ends its own handler, or keeps it from starting, and no other.
func TestEachLosesOneClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.before = func(ops []driver.Op) error {
			for i := range ops {
				if ops[i].Kind == driver.OpExtend && ops[i].ID == dedup.NewID("orders", "lost") {
					ops[i].Token++
				}
			}
			return nil
		}
		d := newDedup(t, s, &dedup.Options{Lease: 30 * time.Second, Concurrency: 1})
		warm(t, d, 0)
		release := make(chan struct{})
		go d.Do(context.Background(), message("has the slot", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			<-release
			return nil, nil
		})
		synctest.Wait()
		done := make(chan []dedup.Result)
		go func() {
			done <- d.Transport().DoEach(context.Background(), messages("lost", "kept"), (&handler{}).handle)
		}()
		time.Sleep(time.Minute)
		close(release)
		rs := <-done
		want(t, rs[0], dedup.Busy, false)
		want(t, rs[1], dedup.Processed, true)

		want(t, d.Do(t.Context(), message("fast", "v"), (&handler{}).handle), dedup.Processed, true)
		d = newDedup(t, s, &dedup.Options{Lease: 30 * time.Second})
		want(t, d.Do(t.Context(), message("fast again", "v"), (&handler{}).handle), dedup.Processed, true)
		time.Sleep(time.Minute)
		d.Transport().DoEach(t.Context(), messages("lost", "other"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			if got := context.Cause(ctx); !errors.Is(got, dedup.ErrLeaseLost) {
				t.Errorf("got %v, want the claim lost", got)
			}
			return nil, nil
		})
	})
}

// All of them have one handler slot, and the gate counts each of their claims.
func TestEachTakesOneSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const took, most = 250 * time.Microsecond, 2 * 100 * 4
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 2})
		warm(t, d, took)
		var running, settled atomic.Int32
		release := make(chan struct{})
		h := func(context.Context, *dedup.Message) ([]byte, error) {
			if n := running.Add(1); n > 2 {
				t.Errorf("got %d handlers at once, want 2", n)
			}
			<-release
			running.Add(-1)
			return nil, nil
		}
		const calls = most
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				for _, r := range d.Transport().DoEach(context.Background(), messages(fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c")), h) {
					if r.Settled() {
						settled.Add(1)
					}
				}
			})
		}
		synctest.Wait()
		if got := s.claimed(t); got < most || got > most+2*3+3 {
			t.Errorf("got %d claims, want those of 2 calls that run, and %d about to start", got, most)
		}
		close(release)
		wg.Wait()
		if got := settled.Load(); got != 3*calls {
			t.Errorf("got %d settled, want %d", got, 3*calls)
		}
	})
}

// Nothing is started once the caller's context has ended, or d is shut down.
func TestEachStopsBetweenHandlers(t *testing.T) {
	for name, stop := range map[string]func(*dedup.Deduplicator, context.CancelFunc){
		"context": func(_ *dedup.Deduplicator, cancel context.CancelFunc) { cancel() },
		"shutdown": func(d *dedup.Deduplicator, _ context.CancelFunc) {
			go func() { _ = d.Shutdown(context.Background()) }()
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDedup(t, s, nil)
			warm(t, d, 0)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
				stop(d, cancel)
				synctest.Wait()
				return nil, nil
			}}
			rs := d.Transport().DoEach(ctx, messages("a", "b", "c"), h.handle)
			want(t, rs[0], dedup.Processed, true)
			want(t, rs[1], dedup.Unavailable, false)
			want(t, rs[2], dedup.Unavailable, false)
			rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "b"))
			if err != nil || rec.State != driver.StateReleased || rec.Attempt != 0 || rec.Ambiguous || h.runs() != 1 {
				t.Errorf("%s: got record %+v, err %v, %d runs; want it released, uncounted, not run", name, rec, err, h.runs())
			}
		})
	}
}
