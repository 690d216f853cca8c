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
)

// run1 is Do, DoBatch, DoEach or Settle of one message.
type run1 func(d *dedup.Deduplicator, ctx context.Context, m *dedup.Message, h dedup.Handler) (dedup.Result, error)

var ways = map[string]run1{
	"Do": func(d *dedup.Deduplicator, ctx context.Context, m *dedup.Message, h dedup.Handler) (dedup.Result, error) {
		r := d.Do(ctx, m, h)
		return r, r.Err
	},
	"Settle": func(d *dedup.Deduplicator, ctx context.Context, m *dedup.Message, h dedup.Handler) (dedup.Result, error) {
		return d.Settle(ctx, m, h)
	},
	"DoBatch": func(d *dedup.Deduplicator, ctx context.Context, m *dedup.Message, h dedup.Handler) (dedup.Result, error) {
		rs := d.DoBatch(ctx, []*dedup.Message{m, message("beside "+m.Position.String(), "v")}, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
			answers := make([]dedup.Answer, len(ms))
			for i, m := range ms {
				answers[i].Result, answers[i].Err = h(ctx, m)
			}
			return answers
		})
		return rs[0], rs[0].Err
	},
	"DoEach": func(d *dedup.Deduplicator, ctx context.Context, m *dedup.Message, h dedup.Handler) (dedup.Result, error) {
		ms := []*dedup.Message{m, message("beside "+m.Position.String(), "v")}
		rs := d.Transport().DoEach(ctx, ms, h)
		return rs[0], rs[0].Err
	},
}

// All slots may belong to handlers that call Do: each such call runs in the slot of
// its handler.
func TestNestedCallsRunInTheSlotOfTheirHandler(t *testing.T) {
	for outer, begin := range ways {
		for inner, call := range ways {
			t.Run(outer+", "+inner, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDedup(t, newStore(), &dedup.Options{Concurrency: 3, HandlerTimeout: -1})
					var wg sync.WaitGroup
					for i := range 6 {
						wg.Go(func() {
							r, _ := begin(d, context.Background(), message(fmt.Sprint("outer", i), "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
								time.Sleep(time.Millisecond) // until all slots are taken
								r, err := call(d, ctx, message("inner "+m.Position.String(), "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
									r := d.Do(ctx, message("innermost "+m.Position.String(), "v"), ok)
									return nil, r.Err
								})
								if r.Outcome != dedup.Processed {
									t.Errorf("inner: got %v, %v", r.Outcome, err)
								}
								return nil, err
							})
							want(t, r, dedup.Processed, true)
						})
					}
					wg.Wait()
				})
			})
		}
	}
}

// A call in a slot of another takes none away: the bound holds again afterwards.
func TestNestedCallLeavesTheBoundAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: 1})
		want(t, d.Do(t.Context(), message("outer", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			r := d.Do(ctx, message("inner", "v"), ok)
			return nil, r.Err
		}), dedup.Processed, true)
		h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, nil
		}}
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() { want(t, d.Do(t.Context(), message(fmt.Sprint(i), "v"), h.handle), dedup.Processed, true) })
		}
		wg.Wait()
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("three handlers of a second took %v in one slot", took)
		}
	})
}

// The key of the running handler would be waited for without end.
func TestOwnKeyIsRefusedAtOnce(t *testing.T) {
	type key struct{}
	contexts := map[string]func(context.Context) context.Context{
		"its context":  func(ctx context.Context) context.Context { return ctx },
		"with a value": func(ctx context.Context) context.Context { return context.WithValue(ctx, key{}, 1) },
		"with an end": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithCancel(ctx)
			context.AfterFunc(ctx, cancel)
			return ctx
		},
		"without its end":  context.WithoutCancel,
		"of a second call": nil,
		"of another store": nil,
	}
	for outer, begin := range ways {
		for inner, call := range ways {
			for name, derive := range contexts {
				t.Run(outer+", "+inner+", "+name, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						d, other := newDedup(t, newStore(), nil), newDedup(t, newStore(), nil)
						own := func(ctx context.Context) error {
							r, err := call(d, ctx, message("k", "v"), ok)
							if r.Outcome != dedup.Busy || r.Settled() || !errors.Is(err, dedup.ErrOwnKey) || !errors.Is(err, dedup.ErrBusy) {
								t.Errorf("got %v, settled %v, %v; want ErrOwnKey", r.Outcome, r.Settled(), err)
							}
							return nil
						}
						at := time.Now()
						r, _ := begin(d, t.Context(), message("k", "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
							if key, _ := m.Headers.Get(dedup.HeaderIdempotencyKey); string(key) != "k" {
								return nil, nil
							}
							between := func(ctx context.Context, _ *dedup.Message) ([]byte, error) { return nil, own(ctx) }
							switch name {
							case "of a second call":
								r := d.Do(ctx, message("second", "v"), between)
								return nil, r.Err
							case "of another store":
								r := other.Do(ctx, message("k", "v"), between)
								return nil, r.Err
							}
							return nil, own(derive(ctx))
						})
						want(t, r, dedup.Processed, true)
						if took := time.Since(at); took != 0 {
							t.Errorf("it took %v", took)
						}
					})
				})
			}
		}
	}
	t.Run("in its dead letter", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var d *dedup.Deduplicator
			d = newDedup(t, newStore(), &dedup.Options{DeadLetter: func(ctx context.Context, _ *dedup.Message, _ error) error {
				if _, err := d.Settle(ctx, message("k", "v"), ok); !errors.Is(err, dedup.ErrOwnKey) {
					t.Errorf("got %v, want ErrOwnKey", err)
				}
				r := d.Do(ctx, message("another", "v"), ok)
				return r.Err
			}})
			want(t, d.Do(t.Context(), message("k", "v"), fails(dedup.Permanent(errBroken), 1).handle), dedup.Parked, true)
		})
	})
	t.Run("once the handler has returned", func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: 1})
		var kept context.Context
		want(t, d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			kept = context.WithoutCancel(ctx)
			return nil, nil
		}), dedup.Processed, true)
		want(t, d.Do(kept, message("k", "v"), ok), dedup.Duplicate, true)
		var wg sync.WaitGroup
		var running atomic.Int32
		for i := range 3 { // each needs a slot of its own
			wg.Go(func() {
				want(t, d.Do(kept, message(fmt.Sprint("another", i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					if n := running.Add(1); n > 1 {
						t.Errorf("%d handlers run in one slot", n)
					}
					time.Sleep(5 * time.Millisecond)
					running.Add(-1)
					return nil, nil
				}), dedup.Processed, true)
			})
		}
		wg.Wait()
	})
}

// Shutdown waits for the handlers, so inside one it would wait for itself.
func TestShutdownInsideAHandlerOrHook(t *testing.T) {
	var d, other *dedup.Deduplicator
	var mu sync.Mutex
	refused := 0
	shut := func(ctx context.Context) {
		if err := d.Shutdown(ctx); !errors.Is(err, dedup.ErrInHandler) {
			t.Errorf("got %v, want ErrInHandler", err)
		}
		mu.Lock()
		defer mu.Unlock()
		refused++
	}
	hook := func(dedup.Event) { shut(context.Background()) }
	inHandler := func(ctx context.Context, _ *dedup.Message) ([]byte, error) { shut(ctx); return nil, nil }
	for name, c := range map[string]struct {
		o dedup.Options
		h dedup.Handler
	}{
		"handler": {h: inHandler},
		"goroutine of the handler": {h: func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			var wg sync.WaitGroup
			wg.Go(func() { shut(ctx) })
			wg.Wait()
			return nil, nil
		}},
		"a call in the handler": {h: func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			r := d.Do(ctx, message("inner", "v"), inHandler)
			return nil, r.Err
		}},
		"a handler in it of another": {h: func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			r := other.Do(ctx, message("other", "v"), inHandler)
			return nil, r.Err
		}},
		"dead letter": {h: fails(dedup.Permanent(errBroken), 1).handle, o: dedup.Options{DeadLetter: func(ctx context.Context, _ *dedup.Message, _ error) error {
			shut(ctx)
			return nil
		}}},
		"Started": {h: ok, o: dedup.Options{Hooks: dedup.Hooks{Started: hook}}},
		"Decided": {h: ok, o: dedup.Options{Hooks: dedup.Hooks{Decided: hook}}},
		"Applied": {h: ok, o: dedup.Options{Hooks: dedup.Hooks{Applied: func(int, time.Duration, error) { shut(context.Background()) }}}},
		"LeaseLost": {h: func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			time.Sleep(time.Minute)
			return nil, nil
		}, o: dedup.Options{HandlerTimeout: time.Second, Lease: time.Second, Hooks: dedup.Hooks{LeaseLost: hook}}},
		"Hung": {h: func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			time.Sleep(time.Minute)
			return nil, nil
		}, o: dedup.Options{HandlerTimeout: time.Second, Lease: time.Second, Hooks: dedup.Hooks{Hung: func(int) { shut(context.Background()) }}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				refused = 0
				d, other = newDedup(t, newStore(), &c.o), newDedup(t, newStore(), nil)
				d.Do(t.Context(), message("k", "v"), c.h)
				d.Do(t.Context(), message("after", "v"), ok) // it goes on
				mu.Lock()
				defer mu.Unlock()
				if refused == 0 {
					t.Error("nothing was refused")
				}
			})
		})
	}
	t.Run("of another Deduplicator", func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		want(t, d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			return nil, newDedup(t, newStore(), nil).Shutdown(ctx)
		}), dedup.Processed, true)
	})
	t.Run("once the handler has returned", func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		var kept context.Context
		d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			kept = context.WithoutCancel(ctx)
			return nil, nil
		})
		if err := d.Shutdown(kept); err != nil {
			t.Error(err)
		}
	})
}

// Two handlers that settle the key of each other would wait for ever.
func TestHandlersThatSettleTheKeyOfEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: 4, HandlerTimeout: -1})
		keys := []string{"a", "b"}
		var wg sync.WaitGroup
		busy := atomic.Int32{}
		for i, key := range keys {
			wg.Go(func() {
				_, err := d.Settle(t.Context(), message(key, "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
					time.Sleep(time.Millisecond)
					_, err := d.Settle(ctx, message(keys[1-i], "v"), ok)
					if errors.Is(err, dedup.ErrBusy) {
						busy.Add(1)
						return nil, nil
					}
					return nil, err
				})
				if err != nil {
					t.Errorf("%s: %v", key, err)
				}
			})
		}
		wg.Wait()
		if busy.Load() == 0 {
			t.Error("none of them was told that the other key is busy")
		}
	})
}

// A delivery that waits for the slot of a handler must not keep the key that the handler settles.
func TestNestedSettleBehindADeliveryThatWaitsForItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: 1, HandlerTimeout: -1})
		var wg sync.WaitGroup
		wg.Go(func() {
			want(t, d.Do(t.Context(), message("a", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				time.Sleep(time.Second)
				if _, err := d.Settle(ctx, message("b", "v"), ok); !errors.Is(err, dedup.ErrBusy) {
					t.Errorf("got %v, want ErrBusy", err)
				}
				return nil, nil
			}), dedup.Processed, true)
		})
		time.Sleep(time.Millisecond)
		want(t, d.Do(t.Context(), message("b", "v"), ok), dedup.Processed, true)
		wg.Wait()
	})
}

// An ErrOwnKey that the handler returns is a failure like any other.
func TestReturnedErrOwnKeyIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		runs := 0
		r, err := d.Settle(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			if runs++; runs == 2 {
				return nil, nil
			}
			_, err := d.Settle(ctx, message("k", "v"), ok)
			return nil, err
		})
		if err != nil || r.Outcome != dedup.Processed || runs != 2 {
			t.Errorf("got %v, %v after %d runs, want it processed in the second", r.Outcome, err, runs)
		}
	})
}

func TestClaimFrom(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	if c, ok := dedup.ClaimFrom(t.Context()); ok {
		t.Errorf("outside of a handler: got %+v", c)
	}
	check := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		if c, ok := dedup.ClaimFrom(ctx); !ok || c != m.Claim || c.Token == 0 {
			t.Errorf("got %+v, %v, want %+v", c, ok, m.Claim)
		}
		return nil, nil
	}
	want(t, d.Do(t.Context(), message("k", "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		r := d.Do(ctx, message("inner", "v"), check)
		_, _ = check(ctx, m)
		return nil, r.Err
	}), dedup.Processed, true)
	for _, r := range d.Transport().DoEach(t.Context(), []*dedup.Message{message("a", "v"), message("b", "v")}, check) {
		want(t, r, dedup.Processed, true)
	}
	d.Do(t.Context(), message("outer", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
		d.DoBatch(ctx, []*dedup.Message{message("c", "v")}, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
			if c, ok := dedup.ClaimFrom(ctx); ok {
				t.Errorf("in a batch handler: got %+v", c)
			}
			return okAll(ctx, ms)
		})
		return nil, nil
	})
}
