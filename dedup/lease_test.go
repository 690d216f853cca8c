package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

func TestLeasesAreRenewedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{Lease: 30 * time.Second, Concurrency: 100})
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				r := d.Do(context.Background(), message(fmt.Sprint(i), "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
					time.Sleep(5 * time.Minute)
					return nil, ctx.Err()
				})
				if r.Outcome != dedup.Processed {
					t.Errorf("got %v: %v", r.Outcome, r.Err)
				}
			})
		}
		wg.Wait()
		extends, batches := s.sent(driver.OpExtend), 0
		for _, ops := range s.calls {
			if ops[0].Kind == driver.OpExtend {
				batches++
			}
		}
		if extends < 100*20 || batches > 40 {
			t.Errorf("got %d extends in %d batches", extends, batches)
		}
	})
}

func TestRefusedExtendCancelsTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		var lost atomic.Int32
		d := newDedup(t, s, &dedup.Options{Hooks: dedup.Hooks{LeaseLost: func(e dedup.Event) {
			lost.Add(1)
			if e.Message.Claim.Token == 0 {
				t.Errorf("got event %+v", e)
			}
		}}})
		s.after = func(ops []driver.Op, replies []driver.Reply) {
			if ops[0].Kind == driver.OpExtend {
				replies[0] = driver.Reply{Status: driver.StatusLost}
			}
		}
		r := d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, dedup.ErrLeaseLost) {
				t.Errorf("got cause %v", cause)
			}
			return nil, ctx.Err()
		})
		want(t, r, dedup.Failed, false)
		if !errors.Is(r.Err, dedup.ErrLeaseLost) || lost.Load() != 1 {
			t.Errorf("got err %v, %d LeaseLost", r.Err, lost.Load())
		}
	})
}

// The renewer fences itself by its own clock, whether the store refuses, fails
// or hangs.
func TestUnrenewedLeaseCancelsTheHandlerAtItsEnd(t *testing.T) {
	hang := make(chan struct{})
	for name, before := range map[string]func([]driver.Op) error{
		"fails": func([]driver.Op) error { return errBroken },
		"hangs": func([]driver.Op) error { <-hang; return errBroken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hang = make(chan struct{})
				s := newStore()
				d := newDedup(t, s, &dedup.Options{Lease: 30 * time.Second})
				start := time.Now()
				r := d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
					s.mu.Lock()
					s.before = before
					s.mu.Unlock()
					<-ctx.Done()
					if got := time.Since(start); got != 30*time.Second {
						t.Errorf("got cancelled after %v, want the lease's 30s", got)
					}
					s.mu.Lock()
					s.before = nil
					s.mu.Unlock()
					close(hang)
					return nil, context.Cause(ctx)
				})
				want(t, r, dedup.Failed, false)
				if !errors.Is(r.Err, dedup.ErrLeaseLost) {
					t.Errorf("got err %v", r.Err)
				}
			})
		})
	}
}

func TestLeaseIsRenewedWhileWaitingForASlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Lease: time.Second, Concurrency: 1})
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				r := d.Do(context.Background(), message(fmt.Sprint(i), "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
					if m.Claim.Ambiguous {
						t.Error("got Ambiguous: the lease lapsed")
					}
					time.Sleep(10 * time.Second)
					return nil, ctx.Err()
				})
				if r.Outcome != dedup.Processed {
					t.Errorf("got %v: %v", r.Outcome, r.Err)
				}
			})
		}
		wg.Wait()
	})
}

// The answer to an extend can come when its batch is over and the next has begun.
func TestLateExtendConcernsNoOtherBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		late := make(chan struct{})
		s.before = func(ops []driver.Op) error {
			if ops[0].Kind == driver.OpExtend {
				<-late
			}
			return nil
		}
		d := newDedup(t, s, &dedup.Options{Lease: 30 * time.Second})
		batch := func(key string, h func(context.Context)) {
			rs := d.DoBatch(t.Context(), []*dedup.Message{message(key, "v")}, func(ctx context.Context, _ []*dedup.Message) []dedup.Answer {
				h(ctx)
				return []dedup.Answer{{}}
			})
			want(t, rs[0], dedup.Processed, true)
		}
		for i := range 20 {
			batch(fmt.Sprint("early ", i), func(context.Context) { time.Sleep(11 * time.Second) })
			if got := s.sent(driver.OpExtend); got != i+1 {
				t.Fatalf("got %d extends, want %d", got, i+1)
			}
			batch(fmt.Sprint("next ", i), func(ctx context.Context) {
				close(late)
				synctest.Wait()
				if err := context.Cause(ctx); err != nil {
					t.Errorf("got %v, want nothing: the store refused to extend another claim", err)
				}
			})
			late = make(chan struct{})
		}
	})
}

// A lease counts from before its extend was sent: the store may have carried it out
// at once, and only its answer is late.
func TestLeaseCountsFromBeforeItsExtendWasSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		extends := 0
		s.before = func(ops []driver.Op) error {
			if ops[0].Kind != driver.OpExtend {
				return nil
			}
			if extends++; extends > 1 {
				return errBroken
			}
			return nil
		}
		s.after = func(ops []driver.Op, _ []driver.Reply) {
			if ops[0].Kind == driver.OpExtend {
				time.Sleep(9 * time.Second)
			}
		}
		d := newDedup(t, s, nil)
		start := time.Now()
		d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			if got, want := time.Since(start), 40*time.Second; got != want { // a third of the lease, and a lease
				t.Errorf("the handler's context ended after %v, want %v", got, want)
			}
			return nil, context.Cause(ctx)
		})
	})
}

// The store may forget what tokens it has issued, but not go back behind those that
// this process has seen: each claim tells the highest.
func TestClaimsTellTheHighestToken(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	h := &handler{}
	for run, key := range []string{"a", "b", "c"} {
		want(t, d.Do(t.Context(), message(key, "v"), h.handle), dedup.Processed, true)
		s.mu.Lock()
		last := s.calls[len(s.calls)-2][0] // the claim before the last complete
		s.mu.Unlock()
		if run > 0 && (last.Kind != driver.OpClaim || last.Floor < h.claim(run).Token) {
			t.Errorf("claim of %s: got %v with floor %d, want at least the token before, %d", key, last.Kind, last.Floor, h.claim(run).Token)
		}
	}
}
