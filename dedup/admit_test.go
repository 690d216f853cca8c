package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// claimed counts the keys that are claimed in the store.
func (f *faulty) claimed(t *testing.T) (n int) {
	for r, err := range f.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.State == driver.StateClaimed {
			n++
		}
	}
	return n
}

// A crash flags every claimed key, so claims are not taken long before their
// handlers start.
func TestSlowHandlersDoNotLetClaimsPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 2})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				r := d.Do(context.Background(), message(fmt.Sprint(i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					if n := s.claimed(t); n > 2+2*2+2 {
						t.Errorf("got %d claims, want those of 2 handlers, 4 about to start, and 2 being recorded", n)
					}
					time.Sleep(time.Second)
					return nil, nil
				})
				if r.Outcome != dedup.Processed {
					t.Errorf("got %v: %v", r.Outcome, r.Err)
				}
			})
		}
		wg.Wait()
	})
}

// Claims that were taken at the pace of fast handlers are given back when handlers turn
// slow, and count for nothing.
func TestClaimsAreGivenBackWhenHandlersTurnSlow(t *testing.T) {
	for _, each := range []bool{false, true} {
		t.Run(fmt.Sprint("DoEach ", each), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const slots, callers = 4, 3000
				s := newStore()
				d := newDedup(t, s, &dedup.Options{Concurrency: slots})
				var slow atomic.Bool
				h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
					if m.Claim.Attempt != 1 || m.Claim.Ambiguous {
						t.Errorf("got claim %+v, want a first attempt", m.Claim)
					}
					if slow.Load() {
						time.Sleep(4 * time.Second)
					} else {
						time.Sleep(20 * time.Microsecond)
					}
					return nil, nil
				}}
				for i := range 200 { // the pace becomes known
					d.Do(t.Context(), message(fmt.Sprint("before", i), "v"), h.handle)
				}
				slow.Store(true)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						m := []*dedup.Message{message(fmt.Sprint(i), "v")}
						if each {
							m = append(m, message(fmt.Sprint("next", i), "v"))
						}
						for len(m) > 0 && ctx.Err() == nil {
							m = m[len(d.Transport().DoEach(ctx, m, h.handle)):]
						}
					})
				}
				most := 0
				for at := range 10 {
					time.Sleep(50 * time.Millisecond)
					n := s.claimed(t)
					most = max(most, n)
					if at >= 4 && n > 3*slots+2*callersOfDoEach {
						t.Errorf("after %v: got %d claims held, want those of %d handlers and %d about to start", time.Duration(at+1)*50*time.Millisecond, n, slots, 2*slots)
					}
				}
				if most < 1000 || most > 2048+slots+callersOfDoEach {
					t.Errorf("got at most %d claims held, want many at the old pace, but bounded", most)
				}
				cancel()
				wg.Wait()
			})
		})
	}
}

const callersOfDoEach = 8 // messages of one call

// All that is turned back is processed in the end, once.
func TestCallsThatAreTurnedBackGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 4})
		var runs atomic.Int32
		h := func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Attempt != 1 || m.Claim.Ambiguous || m.Claim.Token == 0 || m.Claim.Key == "" {
				t.Errorf("got claim %+v, want a first attempt", m.Claim)
			}
			if n := runs.Add(1); n > 200 && n < 240 {
				time.Sleep(time.Second)
			} else {
				time.Sleep(20 * time.Microsecond)
			}
			return []byte(m.Claim.Key), nil
		}
		var wg sync.WaitGroup
		for i := range 3000 {
			wg.Go(func() {
				key := fmt.Sprint(i)
				r := d.Do(t.Context(), message(key, "v"), h)
				if r.Outcome != dedup.Processed || string(r.Value) != key {
					t.Errorf("got %v, %v, value %q, want %q", r.Outcome, r.Err, r.Value, key)
				}
			})
			if i < 200 {
				synctest.Wait()
				time.Sleep(20 * time.Microsecond)
			}
		}
		wg.Wait()
		if runs.Load() != 3000 || s.sent(driver.OpRelease) == 0 {
			t.Errorf("got %d runs of 3000 messages, %d releases; want some", runs.Load(), s.sent(driver.OpRelease))
		}
	})
}

// Another may process what was given back: then no claim is left on the message.
func TestCallsThatAreTurnedBackMayFindADuplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d, elsewhere := newDedup(t, s, &dedup.Options{Concurrency: 2}), newDedup(t, s, nil)
		var slow atomic.Bool
		h := func(context.Context, *dedup.Message) ([]byte, error) {
			if slow.Load() {
				time.Sleep(time.Second)
			} else {
				time.Sleep(20 * time.Microsecond)
			}
			return nil, nil
		}
		for i := range 200 {
			d.Do(t.Context(), message(fmt.Sprint("before", i), "v"), h)
		}
		slow.Store(true)
		var wg sync.WaitGroup
		var duplicates atomic.Int32
		var others []*dedup.Message
		for i := range 300 {
			key := fmt.Sprint(i)
			others = append(others, message(key, "v"))
			wg.Go(func() {
				m := message(key, "v")
				if r := d.Do(t.Context(), m, h); r.Outcome == dedup.Duplicate {
					duplicates.Add(1)
					if want := (dedup.Claim{ID: r.ID, Key: dedup.Key(key)}); m.Claim != want {
						t.Errorf("a duplicate has claim %+v, want %+v", m.Claim, want)
					}
				}
			})
		}
		time.Sleep(500 * time.Millisecond) // they were turned back
		elsewhere.DoBatch(t.Context(), others, okAll)
		wg.Wait()
		if n := duplicates.Load(); n < 200 {
			t.Errorf("got %d duplicates, want most of 300", n)
		}
	})
}

// Duplicates pass beside slow handlers.
func TestDuplicatesDoNotWaitForSlowHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: 1})
		want(t, d.Do(t.Context(), message("done", "v"), (&handler{}).handle), dedup.Processed, true)
		slow := make(chan struct{})
		go func() {
			defer close(slow)
			d.Do(context.Background(), message("slow", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(time.Minute)
				return nil, nil
			})
		}()
		synctest.Wait()
		start := time.Now()
		want(t, d.Do(t.Context(), message("done", "v"), (&handler{}).handle), dedup.Duplicate, true)
		if took := time.Since(start); took > 0 {
			t.Errorf("it waited %v", took)
		}
		<-slow
	})
}

func TestShutdownStartsNoHandlerThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 1})
		h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		}}
		outcomes := make(chan dedup.Outcome, 20)
		for i := range 20 {
			go func() { outcomes <- d.Do(context.Background(), message(fmt.Sprint(i), "v"), h.handle).Outcome }()
		}
		synctest.Wait()
		if err := d.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		count := map[dedup.Outcome]int{}
		for range 20 {
			count[<-outcomes]++
		}
		if h.runs() != 1 || count[dedup.Processed] != 1 || count[dedup.Unavailable] != 19 {
			t.Errorf("got %d runs, %v", h.runs(), count)
		}
		for r, err := range s.Records(t.Context()) {
			if err != nil || r.State != driver.StateDone && (r.State != driver.StateReleased || r.Ambiguous || r.Attempt > 0) {
				t.Errorf("got record %+v, %v; want it done, or released uncounted", r, err)
			}
		}
	})
}

func TestCallerThatGivesUpWhileWaitingForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Concurrency: 1})
		block := make(chan struct{})
		hold := func(context.Context, *dedup.Message) ([]byte, error) { <-block; return nil, nil }
		var wg sync.WaitGroup
		for i := range 3 { // one runs, two are ahead
			wg.Go(func() { d.Do(context.Background(), message(fmt.Sprint(i), "v"), hold) })
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			wg.Go(func() { want(t, d.Do(ctx, message(fmt.Sprint("gone", i), "v"), hold), dedup.Unavailable, false) })
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		last := make(chan dedup.Result, 1)
		go func() { last <- d.Do(context.Background(), message("last", "v"), hold) }()
		close(block)
		want(t, <-last, dedup.Processed, true)
		wg.Wait()
	})
}
