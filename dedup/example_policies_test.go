package dedup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// A second payload under a known key is a conflict. Without this option it halts, or is parked if
// there is a DeadLetter.
func ExampleOptions_onConflict() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{OnConflict: dedup.PolicySkip})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	charge := func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("charged", string(m.Value))
		return nil, nil
	}
	for offset, payload := range []string{`{"cents":100}`, `{"cents":999}`} {
		r := d.Do(context.Background(), order("order-1", payload, int64(offset)), charge)
		fmt.Println(r.Outcome, "settled:", r.Settled(), "conflict:", errors.Is(r.Err, dedup.ErrConflict))
	}
	// Output:
	// charged {"cents":100}
	// processed settled: true conflict: false
	// conflict settled: true conflict: true
}

// The message is older than the store, which cannot know whether it was processed before. By default
// it is processed, with Claim.Stale set. Here an operator has to decide.
func ExampleOptions_onStale() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{OnStale: dedup.PolicyHalt})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	m := order("order-1", "{}", 0)
	m.Published = time.Now().Add(-time.Hour)
	r := d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) {
		fmt.Println("charged")
		return nil, nil
	})
	fmt.Println(r.Outcome, "settled:", r.Settled(), "halt:", r.Halt)
	// Output: stale settled: false halt: true
}

// The first run may have had its effect. By default the message runs again, with Claim.Ambiguous set.
// Here it is parked.
func ExampleOptions_onAmbiguous() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		OnAmbiguous: dedup.PolicyPark,
		DeadLetter: func(_ context.Context, m *dedup.Message, why error) error {
			fmt.Println("dead letter, ambiguous:", errors.Is(why, dedup.ErrAmbiguous))
			return nil // confirmed
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for range 2 {
		r := d.Do(context.Background(), order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.MaybeDone(errors.New("no reply from the payment system"))
		})
		fmt.Println(r.Outcome, "settled:", r.Settled())
	}
	// Output:
	// failed settled: false
	// dead letter, ambiguous: true
	// ambiguous settled: true
}

// Messages without a key run, each time that they are delivered. Without this option they halt, or are
// parked if there is a DeadLetter.
func ExampleOptions_onUnkeyed() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{OnUnkeyed: dedup.PolicyProcess})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	m := &dedup.Message{Topic: "orders", Value: []byte("a message without a key")}
	for range 2 {
		r := d.Do(context.Background(), m, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			fmt.Println("handled", string(m.Value))
			return nil, nil
		})
		fmt.Println(r.Outcome, "settled:", r.Settled())
	}
	// Output:
	// handled a message without a key
	// unkeyed settled: true
	// handled a message without a key
	// unkeyed settled: true
}

// After two failed runs the message is parked.
func ExampleOptions_maxAttempts() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		MaxAttempts: 2,
		DeadLetter: func(_ context.Context, m *dedup.Message, why error) error {
			fmt.Println("dead letter, attempts used up:", errors.Is(why, dedup.ErrAttempts))
			return nil // confirmed
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for range 2 {
		r := d.Do(context.Background(), order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, errors.New("no such customer")
		})
		fmt.Println(r.Outcome, "settled:", r.Settled())
	}
	// Output:
	// failed settled: false
	// dead letter, attempts used up: true
	// parked settled: true
}

// A result that is longer than MaxResult is not kept. Duplicates are recognised all the same.
func ExampleOptions_maxResult() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{MaxResult: 8})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for offset := range int64(2) {
		r := d.Do(context.Background(), order("order-1", "{}", offset), func(context.Context, *dedup.Message) ([]byte, error) {
			return []byte("a result of more than 8 bytes"), nil
		})
		fmt.Printf("%v: %q, omitted: %t\n", r.Outcome, r.Value, r.Omitted)
	}
	// Output:
	// processed: "", omitted: true
	// duplicate: "", omitted: true
}

// The context of a handler that takes too long ends, and its cause says why.
func ExampleOptions_handlerTimeout() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{HandlerTimeout: 10 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r := d.Do(context.Background(), order("order-1", "{}", 0), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
		<-ctx.Done() // a call of another system that does not answer
		return nil, context.Cause(ctx)
	})
	fmt.Println(r.Outcome, "timeout:", errors.Is(r.Err, dedup.ErrTimeout))
	// Output: failed timeout: true
}

// The payload is not compared, so a message that differs from the recorded one is a duplicate and not
// a conflict.
func ExampleNoFingerprint() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{Fingerprint: dedup.NoFingerprint})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	charge := func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }
	for offset, payload := range []string{`{"cents":100,"sent":"12:00"}`, `{"cents":100,"sent":"12:01"}`} {
		fmt.Println(d.Do(context.Background(), order("order-1", payload, int64(offset)), charge).Outcome)
	}
	// Output:
	// processed
	// duplicate
}

// Compare only a part of the payload: the amount must be the same, and the time may differ.
func ExampleFingerprint() {
	amount := func(m *dedup.Message) dedup.Fingerprint {
		cents, _, _ := bytes.Cut(m.Value, []byte(" at "))
		return dedup.PayloadFingerprint(&dedup.Message{Value: cents})
	}
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{Fingerprint: amount})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	charge := func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }
	for offset, payload := range []string{"100 cents at 12:00", "100 cents at 12:01", "999 cents at 12:02"} {
		fmt.Println(d.Do(context.Background(), order("order-1", payload, int64(offset)), charge).Outcome)
	}
	// Output:
	// processed
	// duplicate
	// conflict
}
