package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// meet has a batch with the key wait for one that processes it, and returns the
// results of both for that key. end is what the handler that runs first answers.
func meet(t *testing.T, d *dedup.Deduplicator, first, second *dedup.Message, end func() ([]byte, error)) (a, b dedup.Result, runs int) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	var ran atomic.Int32
	wg.Go(func() {
		a = d.DoBatch(t.Context(), []*dedup.Message{first}, func(context.Context, []*dedup.Message) []dedup.Answer {
			ran.Add(1)
			close(entered)
			<-leave
			result, err := end()
			return []dedup.Answer{{Result: result, Err: err}}
		})[0]
	})
	<-entered
	wg.Go(func() {
		h := &handler{}
		b = d.DoBatch(t.Context(), []*dedup.Message{message("beside", "v"), second}, h.batched)[1]
		ran.Add(int32(h.runs()) - 1)
	})
	synctest.Wait() // it waits for the key
	close(leave)
	wg.Wait()
	return a, b, int(ran.Load())
}

// A message whose key another batch processes gets the recorded result from that,
// and the store is not asked.
func TestBatchIsAnsweredByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, nil)
		first := message("k", "v")
		a, b, runs := meet(t, d, first, message("k", "v"), func() ([]byte, error) { return []byte("result"), nil })
		want(t, a, dedup.Processed, true)
		want(t, b, dedup.Duplicate, true)
		if string(b.Value) != "result" || b.First != first.Position || runs != 1 {
			t.Errorf("got value %q, first seen at %v, %d runs", b.Value, b.First, runs)
		}
		a.Value[0] = 'X'
		if string(b.Value) != "result" {
			t.Error("two callers share a value")
		}
		if got := s.sent(driver.OpClaim); got != 2 {
			t.Errorf("got %d claims, want one for each key", got)
		}
	})
}

// What the store might answer otherwise it is asked.
func TestBatchIsNotAnsweredByAnother(t *testing.T) {
	for name, tt := range map[string]struct {
		value   string
		err     error
		first   dedup.Outcome
		second  dedup.Outcome
		settled bool
		runs    int
		policy  dedup.Policy // OnConflict
	}{
		"that failed":                         {"v", errors.New("no"), dedup.Failed, dedup.Processed, true, 2, 0},
		"with another payload":                {"other", nil, dedup.Processed, dedup.Conflict, true, 1, 0},
		"with another payload, and it waited": {"other", nil, dedup.Processed, dedup.Conflict, true, 1, dedup.PolicySkip},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDedup(t, newStore(), &dedup.Options{DeadLetter: (&letters{}).send, OnConflict: tt.policy})
				a, b, runs := meet(t, d, message("k", "v"), message("k", tt.value), func() ([]byte, error) { return nil, tt.err })
				want(t, a, tt.first, tt.err == nil)
				want(t, b, tt.second, tt.settled)
				if runs != tt.runs {
					t.Errorf("got %d runs, want %d", runs, tt.runs)
				}
			})
		})
	}
}

// A batch that has waited long enough is not answered any more, nor is one that has
// ended otherwise.
func TestBatchWaitsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		entered, leave := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			want(t, d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				close(entered)
				<-leave
				return []byte("late"), nil
			}), dedup.Processed, true)
		})
		<-entered
		h := &handler{}
		for range 3 {
			want(t, d.DoBatch(t.Context(), messages("k"), h.batched)[0], dedup.Busy, false)
		}
		// One that ends by itself while it waits for another key.
		wg.Go(func() {
			d.DoBatch(t.Context(), messages("own", "k"), func(context.Context, []*dedup.Message) []dedup.Answer {
				runtime.Goexit()
				return nil
			})
		})
		synctest.Wait()
		close(leave)
		wg.Wait()
		if h.runs() != 0 {
			t.Errorf("got %d runs beside the first", h.runs())
		}
	})
}

// Batches with a few keys between them, handlers that fail: each key is processed
// once, and everyone who is told so gets its result.
func TestBatchesAnswerEachOther(t *testing.T) {
	const callers, rounds, size, keys = 8, 60, 24, 400
	d := newDedup(t, newStore(), &dedup.Options{MaxAttempts: -1})
	var mu sync.Mutex
	processed := make(map[dedup.Key]int)
	var wg sync.WaitGroup
	for caller := range callers {
		rng := rand.New(rand.NewPCG(uint64(caller), 1))
		wg.Go(func() {
			for range rounds {
				var ms []*dedup.Message
				for range size {
					ms = append(ms, message(fmt.Sprint(rng.IntN(keys)), "v"))
				}
				each := rng.IntN(2) == 0
				var results []dedup.Result
				one := func(m *dedup.Message) dedup.Answer {
					mu.Lock()
					defer mu.Unlock()
					if m.Position.Offset%3 == 0 {
						return dedup.Answer{Err: errors.New("no")}
					}
					processed[m.Claim.Key]++
					return dedup.Answer{Result: []byte(m.Claim.Key)}
				}
				if each {
					results = d.Transport().DoEach(t.Context(), ms, func(_ context.Context, m *dedup.Message) ([]byte, error) {
						a := one(m)
						return a.Result, a.Err
					})
				} else {
					results = d.DoBatch(t.Context(), ms, func(_ context.Context, ms []*dedup.Message) (answers []dedup.Answer) {
						for _, m := range ms {
							answers = append(answers, one(m))
						}
						return answers
					})
				}
				for i, r := range results {
					if r.Settled() && string(r.Value) != string(ms[i].Claim.Key) {
						t.Errorf("key %s: got %v with the value %q", ms[i].Claim.Key, r.Outcome, r.Value)
					}
				}
			}
		})
	}
	wg.Wait()
	for key, n := range processed {
		if n != 1 {
			t.Errorf("key %s was processed %d times", key, n)
		}
	}
	if len(processed) < keys*9/10 {
		t.Errorf("%d of %d keys were processed", len(processed), keys)
	}
}

// What the store said before a message came may be out of date: an operator has the
// key forgotten and the message sent again, while a batch that has it as a duplicate
// still runs.
func TestBatchIsNotToldWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, nil)
		h := &handler{}
		done := d.Do(t.Context(), message("k", "v"), h.handle)
		want(t, done, dedup.Processed, true)
		entered, leave := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			d.DoBatch(t.Context(), messages("k", "slow"), func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
				close(entered)
				<-leave
				return make([]dedup.Answer, len(ms))
			})
		})
		<-entered
		time.Sleep(time.Millisecond)
		if err := s.Forget(t.Context(), []dedup.ID{done.ID}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { want(t, d.DoBatch(t.Context(), messages("k"), h.batched)[0], dedup.Processed, true) })
		synctest.Wait()
		close(leave)
		wg.Wait()
	})
}
