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

// beside calls during while the handler of k, with the payload v, runs in d.
func beside(t *testing.T, d *dedup.Deduplicator, first *dedup.Message, during func()) {
	t.Helper()
	until := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		want(t, d.Do(context.Background(), first, func(context.Context, *dedup.Message) ([]byte, error) {
			<-until
			return nil, nil
		}), dedup.Processed, true)
	})
	synctest.Wait()
	during()
	close(until)
	wg.Wait()
}

// Another payload under a key that runs in this process is a conflict at once, as the
// store would say.
func TestConflictWithARunHere(t *testing.T) {
	for name, call := range ways {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, park := range []bool{false, true} {
					var l letters
					var o dedup.Options
					if park {
						o.DeadLetter = l.send
					}
					s := newStore()
					d, elsewhere := newDedup(t, s, &o), newDedup(t, s, &o)
					first := message("k", "v")
					beside(t, d, first, func() {
						at := time.Now()
						here, _ := call(d, t.Context(), message("k", "another"), ok)
						there, _ := call(elsewhere, t.Context(), message("k", "another"), ok)
						for _, r := range []dedup.Result{here, there} {
							want(t, r, dedup.Conflict, park)
							if !errors.Is(r.Err, dedup.ErrConflict) || r.First != first.Position || r.Halt == park || r.Err.Error() != there.Err.Error() {
								t.Errorf("got %+v, want a conflict with what is at %v", r, first.Position)
							}
						}
						if took := time.Since(at); took != 0 {
							t.Errorf("it took %v", took)
						}
					})
					if park && len(l.whys) != 2 {
						t.Errorf("got %d dead letters, want 2", len(l.whys))
					}
				}
			})
		})
	}
}

// A conflict that only the store can tell is waited for.
func TestConflictThatIsNotOneYet(t *testing.T) {
	t.Run("which is granted meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDedup(t, s, nil)
			s.before = func([]driver.Op) error { time.Sleep(500 * time.Millisecond); return nil }
			beside(t, d, message("k", "v"), func() {
				at := time.Now()
				want(t, d.Do(t.Context(), message("k", "another"), ok), dedup.Conflict, false)
				if took := time.Since(at); took != 500*time.Millisecond {
					t.Errorf("it took %v, want it known when the claim was granted", took)
				}
			})
		})
	})
	t.Run("the one that runs conflicts itself", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDedup(t, s, nil)
			want(t, d.Do(t.Context(), message("k", "right"), ok), dedup.Processed, true)
			s.before = func([]driver.Op) error { time.Sleep(time.Millisecond); return nil }
			var wg sync.WaitGroup
			wg.Go(func() { want(t, d.Do(t.Context(), message("k", "wrong"), ok), dedup.Conflict, false) })
			synctest.Wait()
			want(t, d.Do(t.Context(), message("k", "right"), ok), dedup.Duplicate, true)
			wg.Wait()
		})
	})
	t.Run("a batch that waits for two", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			d := newDedup(t, s, nil)
			beside(t, d, message("k", "v"), func() {
				rs := d.DoBatch(t.Context(), []*dedup.Message{message("k", "v"), message("k", "another"), message("free", "v")}, okAll)
				want(t, rs[0], dedup.Busy, false)
				want(t, rs[1], dedup.Conflict, false)
				want(t, rs[2], dedup.Processed, true)
			})
		})
	})
	t.Run("skipped", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDedup(t, newStore(), &dedup.Options{OnConflict: dedup.PolicySkip})
			beside(t, d, message("k", "v"), func() {
				want(t, d.Do(t.Context(), message("k", "another"), ok), dedup.Busy, false)
			})
			want(t, d.Do(t.Context(), message("k", "another"), ok), dedup.Conflict, true)
		})
	})
	t.Run("without a fingerprint", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDedup(t, newStore(), &dedup.Options{Fingerprint: dedup.NoFingerprint})
			beside(t, d, message("k", "v"), func() {
				want(t, d.Do(t.Context(), message("k", "another"), ok), dedup.Busy, false)
			})
		})
	})
}

// Keys that share a half of their IDs wait for each other, and that is all.
func TestKeysThatShareAHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		d.ShortenIDs(func(dedup.ID) uint64 { return 7 })
		value := func(_ context.Context, m *dedup.Message) ([]byte, error) {
			time.Sleep(100 * time.Millisecond)
			return []byte(m.Claim.Key), nil
		}
		each := func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
			answers := make([]dedup.Answer, len(ms))
			for i, m := range ms {
				answers[i].Result, answers[i].Err = value(ctx, m)
			}
			return answers
		}
		check := func(key string, r dedup.Result) {
			t.Helper()
			if !r.Settled() || string(r.Value) != key || r.ID != dedup.NewID("orders", dedup.Key(key)) {
				t.Errorf("%s: got %v, %v, value %q of %v", key, r.Outcome, r.Err, r.Value, r.ID)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { check("a", d.Do(t.Context(), message("a", "v"), value)) })
		synctest.Wait()
		wg.Go(func() { check("b", d.Do(t.Context(), message("b", "v"), value)) })
		wg.Go(func() { check("c", d.Do(t.Context(), message("c", "another"), value)) })
		wg.Go(func() {
			keys := []string{"d", "e", "a", "d"}
			var ms []*dedup.Message
			for _, key := range keys {
				ms = append(ms, message(key, "v"))
			}
			for i, r := range d.DoBatch(t.Context(), ms, each) {
				check(keys[i], r)
			}
		})
		wg.Wait()
	})
}

// The value that a waiting batch is told is its own, also before it has read it.
func TestValueToldIsNotThatOfTheTeller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		gates := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
		results := map[string]dedup.Result{}
		var mu sync.Mutex
		var wg sync.WaitGroup
		for key, gate := range gates {
			wg.Go(func() {
				r := d.DoBatch(context.Background(), []*dedup.Message{message(key, "v")}, func(context.Context, []*dedup.Message) []dedup.Answer {
					<-gate
					return []dedup.Answer{{Result: []byte("right")}}
				})[0]
				for i := range r.Value { // it is the caller's
					r.Value[i] = 'X'
				}
				mu.Lock()
				defer mu.Unlock()
				results[key] = r
			})
		}
		synctest.Wait()
		told := make(chan []dedup.Result, 1)
		go func() {
			told <- d.DoBatch(context.Background(), []*dedup.Message{message("b", "v"), message("a", "v")}, okAll)
		}()
		synctest.Wait()
		close(gates["a"]) // the batch is answered, and waits for b
		synctest.Wait()
		close(gates["b"])
		for i, r := range <-told {
			if r.Outcome != dedup.Duplicate || string(r.Value) != "right" {
				t.Errorf("message %d: got %v, value %q", i, r.Outcome, r.Value)
			}
		}
		wg.Wait()
	})
}

// No two results share memory, also not those of one key in one batch.
func TestResultsShareNoMemory(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	for _, ways := range []string{"processed", "duplicate"} {
		ms := []*dedup.Message{message("k", "v"), message("k", "v"), message("k", "v")}
		rs := d.DoBatch(t.Context(), ms, func(context.Context, []*dedup.Message) []dedup.Answer {
			return []dedup.Answer{{Result: []byte("right")}}
		})
		for i := range rs {
			for at, r := range rs {
				if want := map[bool]string{true: "wrong", false: "right"}[at < i]; string(r.Value) != want {
					t.Errorf("%s: result %d: got %q after %d were changed, want %q", ways, at, r.Value, i, want)
				}
			}
			copy(rs[i].Value, "wrong")
		}
	}
}

// A panic counts as an attempt, also of a run that was cut short.
func TestPanicOfARunCutShortCounts(t *testing.T) {
	for _, c := range []struct {
		panics bool
		want   int // attempts of the next run
	}{{true, 2}, {false, 1}} {
		d := newDedup(t, newStore(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		d.Do(ctx, message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			cancel()
			if c.panics {
				panic("bang")
			}
			return nil, errBroken
		})
		h := &handler{}
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
		if got := h.claim(1); got.Attempt != c.want || !got.Ambiguous {
			t.Errorf("panic %v: got claim %+v, want attempt %d, ambiguous", c.panics, got, c.want)
		}
	}
}

func TestMaxResultIsTheLengthOfTheLongest(t *testing.T) {
	const most = 10
	d := newDedup(t, newStore(), &dedup.Options{MaxResult: most})
	for n := most - 1; n <= most+1; n++ {
		h := func(context.Context, *dedup.Message) ([]byte, error) { return make([]byte, n), nil }
		for range 2 {
			if r := d.Do(t.Context(), message(fmt.Sprint(n), "v"), h); r.Omitted != (n > most) || len(r.Value) != n && n <= most {
				t.Errorf("a result of %d bytes: got omitted %v, %d bytes", n, r.Omitted, len(r.Value))
			}
		}
	}
}
