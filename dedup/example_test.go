package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// order returns a delivery as a transport would make it.
func order(key, payload string, offset int64) *dedup.Message {
	m := &dedup.Message{
		Topic: "orders", Value: []byte(payload),
		Position: dedup.Position{Source: "orders", Offset: offset},
	}
	m.Headers.SetKey(dedup.Key(key))
	return m
}

// A loop of one's own: wrap the handler, and acknowledge when it returns nil.
func ExampleNew() {
	store := memstore.New(nil) // boltstore.Open in production
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), &dedup.Options{TTL: 48 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	handle := d.Wrap(func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("charged", string(m.Value))
		return nil, nil
	})
	for offset, key := range []string{"order-1", "order-2", "order-1"} {
		if err := handle(context.Background(), order(key, key, int64(offset))); err != nil {
			fmt.Println(err) // neither acknowledge nor go on
			return
		}
		fmt.Println("acknowledge", offset)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// charged order-1
	// acknowledge 0
	// charged order-2
	// acknowledge 1
	// acknowledge 2
}

// A duplicate gets the result that was recorded, and the handler does not run.
func ExampleDeduplicator_Do() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = d.Shutdown(context.Background()) }()
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

// The key comes from a header, or else from the payload.
func ExampleFirstOf() {
	key := dedup.FirstOf(dedup.HeaderKey("Idempotency-Key"), dedup.JSONKey("order.id"))
	producer := order("from the producer", `{"order":{"id":17}}`, 0)
	derived := &dedup.Message{Value: []byte(`{"order":{"id":17}}`)}
	neither := &dedup.Message{Value: []byte(`{"ping":true}`)}
	for _, m := range []*dedup.Message{producer, derived, neither} {
		k, err := key(m)
		fmt.Printf("%v no key: %v\n", k, errors.Is(err, dedup.ErrNoKey))
	}
	// Output:
	// "from the producer" no key: false
	// json:[17] no key: false
	// "" no key: true
}

// Permanent says that trying again is useless: the message goes to the dead
// letters at once.
func ExamplePermanent() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		DeadLetter: func(_ context.Context, m *dedup.Message, why error) error {
			fmt.Printf("dead letter: %s: %v\n", m.Value, why)
			return nil // confirmed
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = d.Shutdown(context.Background()) }()
	r := d.Do(context.Background(), order("order-1", "garbage", 0), func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.Permanent(errors.New("not an order"))
	})
	fmt.Println(r.Outcome, r.Settled())
	// Output:
	// dead letter: garbage: not an order
	// parked true
}
