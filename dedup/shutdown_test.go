package dedup_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

func TestShutdownWaitsForWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		done := make(chan dedup.Result, 1)
		go func() {
			done <- d.Do(context.Background(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				time.Sleep(time.Minute)
				return nil, ctx.Err()
			})
		}()
		synctest.Wait()
		start := time.Now()
		if err := d.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(start); got != time.Minute {
			t.Errorf("Shutdown returned after %v", got)
		}
		want(t, <-done, dedup.Processed, true)
		r := d.Do(t.Context(), message("k", "v"), (&handler{}).handle)
		want(t, r, dedup.Unavailable, false)
		if !errors.Is(r.Err, dedup.ErrClosed) {
			t.Errorf("got err %v", r.Err)
		}
		want(t, d.DoBatch(t.Context(), []*dedup.Message{message("k", "v")}, (&handler{}).batched)[0], dedup.Unavailable, false)
		if _, err := d.Settle(t.Context(), message("k", "v"), (&handler{}).handle); !errors.Is(err, dedup.ErrClosed) {
			t.Errorf("Settle: got err %v", err)
		}
	})
}

func TestShutdownDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		handler dedup.Handler
		broken  bool
		outcome dedup.Outcome
	}{
		"cancels handlers": {func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}, false, dedup.Failed},
		"gives up recording": {func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }, true, dedup.Uncertain},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				d, err := dedup.New(s, "orders", dedup.HeaderKey(), nil)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan dedup.Result, 1)
				go func() {
					done <- d.Do(context.Background(), message("k", "v"), func(ctx context.Context, m *dedup.Message) ([]byte, error) {
						if c.broken {
							s.mu.Lock()
							s.before = func([]driver.Op) error { return errBroken }
							s.mu.Unlock()
						}
						return c.handler(ctx, m)
					})
				}()
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err = d.Shutdown(ctx)
				if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 call") {
					t.Errorf("got err %v", err)
				}
				r := <-done
				want(t, r, c.outcome, false)
				if c.outcome == dedup.Failed && !errors.Is(r.Err, dedup.ErrClosed) {
					t.Errorf("got err %v, want ErrClosed", r.Err)
				}
			})
		})
	}
}

func TestSettleAndWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		h := fails(errBroken, 3)
		if err := d.Wrap(h.handle)(t.Context(), message("k", "v")); err != nil || h.runs() != 4 {
			t.Errorf("got err %v after %d runs", err, h.runs())
		}
		err := d.Wrap(fails(dedup.Permanent(errBroken), 9).handle)(t.Context(), message("k2", "v"))
		if !errors.Is(err, dedup.ErrHalted) || !errors.Is(err, errBroken) {
			t.Errorf("got err %v, want ErrHalted and the cause", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err = d.Wrap(fails(errBroken, 1<<30).handle)(ctx, message("k3", "v"))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got err %v, want the deadline", err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for name, f := range map[string]func() error{
		"store":   func() error { _, err := dedup.New(nil, "s", dedup.HeaderKey(), nil); return err },
		"scope":   func() error { _, err := dedup.New(newStore(), "", dedup.HeaderKey(), nil); return err },
		"KeyFunc": func() error { _, err := dedup.New(newStore(), "s", nil, nil); return err },
		"TTL": func() error {
			_, err := dedup.New(newStore(), "s", dedup.HeaderKey(), &dedup.Options{TTL: time.Second})
			return err
		},
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got err %v", name, err)
		}
	}
}
