package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// A duplicate gets the recorded result, and the handler does not run.
func ExampleDeduplicator_Do() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	invoices := 0
	invoice := func(context.Context, *dedup.Message) ([]byte, error) {
		invoices++
		return fmt.Appendf(nil, "invoice %d", invoices), nil
	}
	for offset := range int64(2) {
		r := d.Do(context.Background(), order("order-1", "{}", offset), invoice)
		fmt.Printf("%v: %s, first seen at %v\n", r.Outcome, r.Value, r.First)
	}
	// Output:
	// processed: invoice 1, first seen at orders/0@0
	// duplicate: invoice 1, first seen at orders/0@0
}

// One call of the handler for all messages that are to run. It returns one Answer for each of them.
func ExampleDeduplicator_DoBatch() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	batch := []*dedup.Message{order("order-1", "a", 0), order("order-2", "b", 1), order("order-1", "a", 2)}
	results := d.DoBatch(context.Background(), batch, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
		fmt.Println("the handler gets", len(ms), "messages")
		answers := make([]dedup.Answer, len(ms))
		for i, m := range ms {
			answers[i].Result = []byte("charged " + string(m.Value))
		}
		return answers
	})
	for i, r := range results {
		fmt.Printf("%v: %v, %s\n", batch[i].Position, r.Outcome, r.Value)
	}
	// Output:
	// the handler gets 2 messages
	// orders/0@0: processed, charged a
	// orders/0@1: processed, charged b
	// orders/0@2: duplicate, charged a
}

// Settle tries again until the message is settled.
func ExampleDeduplicator_Settle() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		Backoff: dedup.Backoff(time.Millisecond, 10*time.Millisecond),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r, err := d.Settle(context.Background(), order("order-1", "{}", 0), func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("run", m.Claim.Attempt)
		if m.Claim.Attempt < 3 {
			return nil, errors.New("no connection")
		}
		return []byte("charged"), nil
	})
	fmt.Printf("%v: %s, error %v\n", r.Outcome, r.Value, err)
	// Output:
	// run 1
	// run 2
	// run 3
	// processed: charged, error <nil>
}

// An error of the wrapped handler stops the loop: the message is not settled, and a later commit
// would cover it.
func ExampleDeduplicator_Wrap() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	handle := d.Wrap(func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("charged", string(m.Value))
		return nil, nil
	})
	deliveries := []*dedup.Message{
		order("order-1", "order-1", 0),
		{Topic: "orders", Value: []byte("a message without a key")},
		order("order-2", "order-2", 2),
	}
	for _, m := range deliveries {
		if err := handle(context.Background(), m); err != nil {
			fmt.Println("halted:", errors.Is(err, dedup.ErrHalted), "no key:", errors.Is(err, dedup.ErrNoKey))
			return
		}
		fmt.Println("commit", m.Position.Offset)
	}
	// Output:
	// charged order-1
	// commit 0
	// halted: true no key: true
}

// After Shutdown, messages are refused and not settled: their broker delivers them again to another
// consumer.
func ExampleDeduplicator_Shutdown() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // for the running handlers
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		log.Print(err) // handlers still run
	}
	r := d.Do(ctx, order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
	fmt.Println(r.Outcome, "settled:", r.Settled(), "closed:", errors.Is(r.Err, dedup.ErrClosed))
	// Output: unavailable settled: false closed: true
}

// The Outcome names the reason. Settled and Halt say what to do with the delivery.
func ExampleResult() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	answer := func(m *dedup.Message, charge dedup.Handler) {
		switch r := d.Do(context.Background(), m, charge); {
		case r.Settled():
			fmt.Println(r.Outcome, "- acknowledge it")
		case r.Halt:
			fmt.Println(r.Outcome, "- stop: an operator must look")
		default:
			fmt.Println(r.Outcome, "- ask for redelivery after r.RetryAfter")
		}
	}
	answer(order("order-1", "{}", 0), func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
	answer(order("order-2", "{}", 1), func(context.Context, *dedup.Message) ([]byte, error) { return nil, errors.New("no connection") })
	answer(&dedup.Message{Topic: "orders"}, nil) // without a key the handler does not run
	// Output:
	// processed - acknowledge it
	// failed - ask for redelivery after r.RetryAfter
	// unkeyed - stop: an operator must look
}
