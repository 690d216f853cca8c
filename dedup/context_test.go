package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

type valueKey struct{}

// A handler's context behaves as one of package context, however it is asked.
func TestHandlerContextEnds(t *testing.T) {
	errLeft := errors.New("the caller left")
	waits := map[string]func(ctx context.Context) context.Context{
		"Done": func(ctx context.Context) context.Context { <-ctx.Done(); return ctx },
		"Err, late": func(ctx context.Context) context.Context {
			time.Sleep(2 * time.Hour)
			return ctx
		},
		"a child": func(ctx context.Context) context.Context {
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			<-child.Done()
			return child
		},
		"AfterFunc": func(ctx context.Context) context.Context {
			called := make(chan struct{})
			context.AfterFunc(ctx, func() { close(called) })
			<-called
			return ctx
		},
	}
	for _, end := range []struct {
		name       string
		timeout    time.Duration
		caller     time.Duration // when its context is cancelled; 0: never
		storeFails bool          // once the handler has started
		err, cause error
	}{
		{name: "timeout", timeout: time.Second, err: context.DeadlineExceeded, cause: dedup.ErrTimeout},
		{name: "timeout, then the lease", timeout: time.Second, storeFails: true, err: context.DeadlineExceeded, cause: dedup.ErrTimeout},
		{name: "caller", timeout: 3 * time.Hour, caller: time.Second, err: context.Canceled, cause: errLeft},
		{name: "caller, without a timeout", timeout: -1, caller: time.Second, err: context.Canceled, cause: errLeft},
		{name: "lease", timeout: 3 * time.Hour, storeFails: true, err: context.Canceled, cause: dedup.ErrLeaseLost},
	} {
		for asked, wait := range waits {
			t.Run(end.name+", by "+asked, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStore()
					d := newDedup(t, s, &dedup.Options{HandlerTimeout: end.timeout, Lease: 30 * time.Second})
					caller, cancel := context.WithCancelCause(context.WithValue(t.Context(), valueKey{}, "v"))
					defer cancel(nil)
					if end.caller > 0 {
						time.AfterFunc(end.caller, func() { cancel(errLeft) })
					}
					r := d.Do(caller, message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
						if end.storeFails {
							s.mu.Lock()
							s.before = func([]driver.Op) error { return errBroken }
							s.mu.Unlock()
						}
						at, ok := ctx.Deadline()
						if ok != (end.timeout > 0) || ok && time.Until(at) != end.timeout {
							t.Errorf("got a deadline %v: in %v, want in %v", ok, time.Until(at), end.timeout)
						}
						ended := wait(ctx)
						if err, cause := ended.Err(), context.Cause(ended); !errors.Is(err, end.err) || !errors.Is(cause, end.cause) {
							t.Errorf("got %v because of %v, want %v because of %v", err, cause, end.err, end.cause)
						}
						if v := ctx.Value(valueKey{}); v != "v" {
							t.Errorf("got value %v of the caller's context, want v", v)
						}
						s.mu.Lock()
						s.before = nil
						s.mu.Unlock()
						return nil, errBroken
					})
					if !errors.Is(r.Err, end.cause) || !errors.Is(r.Err, errBroken) {
						t.Errorf("got %v, want %v and %v", r.Err, end.cause, errBroken)
					}
				})
			})
		}
	}
}

// A handler may leave its context to a goroutine: it has ended once the handler has.
func TestHandlerContextEndsWithTheHandler(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprint("asked before ", asked), func(t *testing.T) {
			d := newDedup(t, newStore(), nil)
			var kept context.Context
			r := d.Do(t.Context(), message("k", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
				if kept = ctx; asked && ctx.Err() != nil {
					t.Errorf("got %v in the handler", ctx.Err())
				}
				return nil, nil
			})
			want(t, r, dedup.Processed, true)
			<-kept.Done()
			if err, cause := kept.Err(), context.Cause(kept); !errors.Is(err, context.Canceled) || !errors.Is(cause, context.Canceled) {
				t.Errorf("got %v because of %v, want it cancelled", err, cause)
			}
		})
	}
}

// A handler that never asks is told of its timeout all the same, in its error.
func TestTimeoutThatNobodyAskedForIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{HandlerTimeout: time.Second})
		r := d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, errBroken
		})
		if !errors.Is(r.Err, dedup.ErrTimeout) {
			t.Errorf("got %v, want %v", r.Err, dedup.ErrTimeout)
		}
	})
}

// A handler that never asks is told first what happened first.
func TestLostLeaseIsNamedBeforeTheCallersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d := newDedup(t, s, &dedup.Options{HandlerTimeout: -1, Lease: time.Second})
		caller, cancel := context.WithCancel(t.Context())
		defer cancel()
		r := d.Do(caller, message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			s.mu.Lock()
			s.before = func([]driver.Op) error { return errBroken }
			s.mu.Unlock()
			time.Sleep(5 * time.Second)
			cancel()
			time.Sleep(time.Second)
			s.mu.Lock()
			s.before = nil
			s.mu.Unlock()
			return nil, errBroken
		})
		if !errors.Is(r.Err, dedup.ErrLeaseLost) {
			t.Errorf("got %v, want %v", r.Err, dedup.ErrLeaseLost)
		}
	})
}
