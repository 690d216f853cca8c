package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
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
		rs := d.DoEach(t.Context(), ms, h.handle)
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
		if got := d.DoEach(t.Context(), nil, h.handle); len(got) != 0 {
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
			if got := len(d.DoEach(t.Context(), messages("a", "b"), h.handle)); got != 1 {
				t.Errorf("got %d at first, want 1: nobody knows how long a handler takes", got)
			}
			d = newDedup(t, newStore(), nil)
			warm(t, d, took)
			if got := len(d.DoEach(t.Context(), messages("1", "2", "3", "4", "5", "6", "7", "8", "9"), h.handle)); got != want {
				t.Errorf("handlers take %v: got %d, want %d", took, got, want)
			}
		})
	}
}

// Each handler has its own time.
func TestEachTimesOutAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: 8 * time.Millisecond})
		warm(t, d, 0)
		start := time.Now()
		rs := d.DoEach(t.Context(), messages("a", "b", "c", "d"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
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
		if !errors.Is(rs[1].Err, dedup.ErrTimeout) || time.Since(start) != 11*time.Millisecond {
			t.Errorf("got %v after %v", rs[1].Err, time.Since(start))
		}
	})
}

// What follows a handler that is suddenly slow is given back as if it had never been
// tried, and what came before it is recorded.
func TestEachGivesBackWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var took []time.Duration
		d := newDedup(t, s, &dedup.Options{Hooks: dedup.Hooks{Decided: func(e dedup.Event) { took = append(took, e.Took) }}})
		warm(t, d, 0)
		h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Key == "slow" {
				time.Sleep(time.Minute)
			}
			return nil, nil
		}}
		took = nil
		rs := d.DoEach(t.Context(), messages("a", "slow", "late", "warm"), h.handle)
		want(t, rs[0], dedup.Processed, true)
		want(t, rs[1], dedup.Processed, true)
		want(t, rs[2], dedup.Unavailable, false)
		want(t, rs[3], dedup.Duplicate, true)
		if rs[2].RetryAfter != 0 || rs[2].Halt {
			t.Errorf("got retry after %v, halt %v, want it at once", rs[2].RetryAfter, rs[2].Halt)
		}
		if took[0] >= time.Millisecond || took[1] != time.Minute || took[2] != 0 {
			t.Errorf("got handlers of %v", took)
		}
		rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "late"))
		if err != nil || rec.State != dedup.StateReleased || rec.Attempt != 0 || rec.Ambiguous {
			t.Errorf("got record %+v, err %v; want it released, uncounted", rec, err)
		}
		if got := len(d.DoEach(t.Context(), messages("late", "other"), h.handle)); got != 1 {
			t.Errorf("got %d at once after that, want 1", got)
		}
	})
}

// The claim that is lost ends its own handler, and no other.
func TestEachLosesOneClaim(t *testing.T) {
	for _, c := range []struct {
		keys  []string
		cause error // of the first handler's end
	}{
		{[]string{"kept", "lost"}, nil},
		{[]string{"lost", "kept"}, dedup.ErrLeaseLost},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			s.before = func(ops []dedup.Op) error {
				for i := range ops {
					if ops[i].Kind == dedup.OpExtend && ops[i].ID == dedup.NewID("orders", "lost") {
						ops[i].Token++
					}
				}
				return nil
			}
			d := newDedup(t, s, &dedup.Options{Lease: 30 * time.Second})
			warm(t, d, 0)
			d.DoEach(t.Context(), messages(c.keys...), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
				time.Sleep(15 * time.Second)
				if got := context.Cause(ctx); !errors.Is(got, c.cause) || m.Claim.Key != dedup.Key(c.keys[0]) {
					t.Errorf("the handler of %s: got %v, want %v", m.Claim.Key, got, c.cause)
				}
				return nil, nil
			})
			if got := s.sent(dedup.OpExtend); got != 2 {
				t.Errorf("got %d extends, want 2", got)
			}
		})
	}
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
				for _, r := range d.DoEach(context.Background(), messages(fmt.Sprint(i, "a"), fmt.Sprint(i, "b"), fmt.Sprint(i, "c")), h) {
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
			rs := d.DoEach(ctx, messages("a", "b", "c"), h.handle)
			want(t, rs[0], dedup.Processed, true)
			want(t, rs[1], dedup.Unavailable, false)
			want(t, rs[2], dedup.Unavailable, false)
			rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "b"))
			if err != nil || rec.State != dedup.StateReleased || rec.Attempt != 0 || rec.Ambiguous || h.runs() != 1 {
				t.Errorf("%s: got record %+v, err %v, %d runs; want it released, uncounted, not run", name, rec, err, h.runs())
			}
		})
	}
}
