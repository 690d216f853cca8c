package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// To try again is useless, so the message goes to the dead letters at once.
func ExamplePermanent() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		DeadLetter: func(_ context.Context, m *dedup.Message, why error) error {
			fmt.Printf("dead letter: %s: %v\n", m.Value, why)
			return nil // confirmed
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r := d.Do(context.Background(), order("order-1", "garbage", 0), func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.Permanent(errors.New("not an order"))
	})
	fmt.Println(r.Outcome, r.Settled())
	// Output:
	// dead letter: garbage: not an order
	// parked true
}

// The other system says when it will take the request. That replaces Options.Backoff.
func ExampleRetryAfter() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r := d.Do(context.Background(), order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.RetryAfter(errors.New("too many requests"), time.Minute)
	})
	fmt.Printf("%v: %v, again after %v\n", r.Outcome, r.Err, r.RetryAfter)
	// Output: failed: too many requests, again after 1m0s
}

// A dependency is down. The run does not count as an attempt, so the message is not parked, however
// long that takes.
func ExampleTransient() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		MaxAttempts: 1,
		DeadLetter:  func(context.Context, *dedup.Message, error) error { return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for range 3 {
		r := d.Do(context.Background(), order("order-1", "{}", 0), func(_ context.Context, m *dedup.Message) ([]byte, error) {
			fmt.Println("attempt", m.Claim.Attempt)
			return nil, dedup.Transient(errors.New("connection refused"))
		})
		fmt.Println(r.Outcome)
	}
	// Output:
	// attempt 1
	// failed
	// attempt 1
	// failed
	// attempt 1
	// failed
}

// The reply got lost, so the handler does not know whether it had its effect. The next run is told.
func ExampleMaybeDone() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for range 2 {
		r := d.Do(context.Background(), order("order-1", "{}", 0), func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Claim.Ambiguous {
				fmt.Println("look first whether the order is charged")
				return nil, nil
			}
			return nil, dedup.MaybeDone(errors.New("no reply"))
		})
		fmt.Println(r.Outcome)
	}
	// Output:
	// failed
	// look first whether the order is charged
	// processed
}

// Marks can be combined. The marked error still matches the original one.
func ExampleIsPermanent() {
	refused := errors.New("refused")
	err := dedup.MaybeDone(dedup.Permanent(refused))
	fmt.Println(driver.IsPermanent(err), errors.Is(err, refused))
	fmt.Println(driver.IsPermanent(refused))
	// Output:
	// true true
	// false
}

// A panic of a handler fails its message, and the program goes on.
func ExamplePanicError() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r := d.Do(context.Background(), order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) {
		panic("index out of range")
	})
	var p *dedup.PanicError
	fmt.Println(r.Outcome, errors.Is(r.Err, dedup.ErrPanic))
	if errors.As(r.Err, &p) {
		fmt.Println(p.Value, "with a stack:", len(p.Stack) > 0)
	}
	// Output:
	// failed true
	// index out of range with a stack: true
}

// The wait is random, so that messages which failed together do not come again together.
func ExampleBackoff() {
	backoff := dedup.Backoff(100*time.Millisecond, 30*time.Second)
	fmt.Println("after the first failure at most 100ms:", backoff(1) <= 100*time.Millisecond)
	fmt.Println("after the second at most 200ms:", backoff(2) <= 200*time.Millisecond)
	fmt.Println("never more than 30s:", backoff(1000) <= 30*time.Second)
	// Output:
	// after the first failure at most 100ms: true
	// after the second at most 200ms: true
	// never more than 30s: true
}
