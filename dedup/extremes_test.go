package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

var extremes = []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}

// numbers returns the fields of Options that are numbers.
func numbers(o *dedup.Options) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for v, i := reflect.ValueOf(o).Elem(), 0; i < v.NumField(); i++ {
		if f := v.Field(i); f.CanInt() && f.Type() == reflect.TypeFor[time.Duration]() || f.Kind() == reflect.Int {
			fields[v.Type().Field(i).Name] = f
		}
	}
	return fields
}

// works wants a Deduplicator with the options to do what they say, if New accepts them.
func works(t *testing.T, o *dedup.Options) (accepted bool) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		d, err := dedup.New(s, "orders", dedup.HeaderKey(), o)
		if err != nil {
			if s := err.Error(); !strings.HasPrefix(s, "dedup: ") {
				t.Errorf("got error %q, which names no package", s)
			}
			return
		}
		accepted = true
		defer func() {
			if err := d.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		value := func(context.Context, *dedup.Message) ([]byte, error) { return []byte("value"), nil }
		omitted := o.MaxResult < 0 || o.MaxResult > 0 && o.MaxResult < len("value")
		check := func(r dedup.Result, outcome dedup.Outcome) {
			t.Helper()
			want(t, r, outcome, true)
			if r.Omitted != omitted || string(r.Value) != "value" && !omitted {
				t.Errorf("got value %q, omitted %v", r.Value, r.Omitted)
			}
		}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { check(d.Do(t.Context(), message(fmt.Sprint(i), "v"), value), dedup.Processed) })
		}
		wg.Wait()
		check(d.Do(t.Context(), message("7", "v"), value), dedup.Duplicate)
		for i, r := range d.DoBatch(t.Context(), []*dedup.Message{message("8", "v"), message("a", "v")}, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
			return []dedup.Answer{{Result: []byte("value")}}
		}) {
			check(r, []dedup.Outcome{dedup.Duplicate, dedup.Processed}[i])
		}
		// As long as the TTL says, and no longer.
		ttl := o.TTL
		if ttl == 0 {
			ttl = 24 * time.Hour
		}
		time.Sleep(min(ttl, 200*24*time.Hour) - 10*time.Millisecond)
		check(d.Do(t.Context(), message("7", "v"), value), dedup.Duplicate)
		if ttl < math.MaxInt64-1 {
			time.Sleep(time.Second)
			check(d.Do(t.Context(), message("7", "v"), value), dedup.Processed)
		}
		// A handler that fails comes again, or is parked, and no wait is negative.
		r := d.Do(t.Context(), message("fails", "v"), fails(errBroken, 1).handle)
		if r.Outcome == dedup.Processed || r.RetryAfter < 0 || r.Settled() != (r.Outcome == dedup.Parked) {
			t.Errorf("got %v, settled %v, RetryAfter %v", r.Outcome, r.Settled(), r.RetryAfter)
		}
		// A handler that runs for long.
		h := func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			time.Sleep(time.Hour)
			return []byte("value"), nil
		}
		check(d.Do(t.Context(), message("long", "v"), h), dedup.Processed)
	})
	return accepted
}

// Every number is refused with a message, or means what it says.
func TestMaxAttemptsThatAStoreCannotCount(t *testing.T) {
	for n, want := range map[int]bool{65_535: true, 65_536: false} {
		_, err := dedup.New(newStore(), "orders", dedup.HeaderKey(), &dedup.Options{MaxAttempts: n, DeadLetter: (&letters{}).send})
		if (err == nil) != want {
			t.Errorf("MaxAttempts %d: got %v", n, err)
		}
	}
}

func TestExtremeOptions(t *testing.T) {
	for name := range numbers(new(dedup.Options)) {
		for _, n := range extremes {
			t.Run(fmt.Sprint(name, "=", n), func(t *testing.T) {
				o := &dedup.Options{DeadLetter: (&letters{}).send}
				f := numbers(o)[name]
				f.SetInt(n)
				if name == "Lease" { // which is at most the TTL
					o.TTL = max(o.Lease, 24*time.Hour)
				}
				works(t, o)
			})
		}
	}
	t.Run("together", func(t *testing.T) {
		accepted := 0
		for seed := range uint64(400) {
			r := rand.New(rand.NewPCG(seed, 1))
			o := &dedup.Options{DeadLetter: (&letters{}).send}
			for _, name := range []string{"TTL", "Lease", "HandlerTimeout", "MaxAttempts", "MaxResult", "ClockSkew", "Concurrency"} {
				if r.IntN(2) == 0 {
					numbers(o)[name].SetInt(extremes[2+r.IntN(len(extremes)-2)])
				}
			}
			if works(t, o) {
				accepted++
			}
			if t.Failed() {
				t.Fatalf("seed %d: %+v", seed, o)
			}
		}
		if accepted < 20 {
			t.Errorf("only %d of 400 were accepted", accepted)
		}
	})
}

// Settle neither spins nor gives up, whatever a policy or a handler says of the wait.
func TestExtremeWaits(t *testing.T) {
	for _, n := range extremes {
		wait := time.Duration(n)
		for name, c := range map[string]struct {
			o   *dedup.Options
			err error
		}{
			"Backoff":    {&dedup.Options{Backoff: func(int) time.Duration { return wait }}, errBroken},
			"RetryAfter": {nil, dedup.RetryAfter(errBroken, wait)},
		} {
			t.Run(fmt.Sprint(name, " of ", n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					d := newDedup(t, newStore(), c.o)
					h := fails(c.err, math.MaxInt)
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					defer cancel()
					r, err := d.Settle(ctx, message("k", "v"), h.handle)
					if !errors.Is(err, context.DeadlineExceeded) || r.RetryAfter < 0 {
						t.Errorf("got %v, RetryAfter %v; want the deadline", err, r.RetryAfter)
					}
					if n := h.runs(); n < 1 || n > 41 || wait > 1 && n != 1 {
						t.Errorf("got %d runs in 200 ms", n)
					}
				})
			})
		}
	}
}

func TestManyHandlersWithoutABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{Concurrency: math.MaxInt})
		begin := time.Now()
		var wg sync.WaitGroup
		for i := range 5000 {
			wg.Go(func() {
				want(t, d.Do(t.Context(), message(fmt.Sprint(i), "v"), func(context.Context, *dedup.Message) ([]byte, error) {
					time.Sleep(time.Second)
					return nil, nil
				}), dedup.Processed, true)
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("5,000 handlers of a second took %v, want 1s", took)
		}
	})
}

// A wait before a redelivery is never negative, whatever asked for it.
func TestNegativeWaitsCountAsNone(t *testing.T) {
	d := newDedup(t, newStore(), &dedup.Options{Backoff: func(int) time.Duration { return -time.Hour }})
	for name, err := range map[string]error{"Backoff": errBroken, "RetryAfter": dedup.RetryAfter(errBroken, -time.Hour)} {
		r := d.Do(t.Context(), message(name, "v"), fails(err, 1).handle)
		if want(t, r, dedup.Failed, false); r.RetryAfter != 0 {
			t.Errorf("%s of -1h: got a Result with RetryAfter %v, want 0", name, r.RetryAfter)
		}
	}
}
