package memstore_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// In a test, a store in memory is all that a Deduplicator needs.
func ExampleNew() {
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Value: []byte("{}")}
	m.Headers.SetKey("order-1")
	for range 2 {
		fmt.Println(d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }).Outcome)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// processed
	// duplicate
}

// A test can move the time: when the TTL has passed, the key is forgotten.
func ExampleOptions() {
	now := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	store := memstore.New(&memstore.Options{Now: func() time.Time { return now }})
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), &dedup.Options{TTL: 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Value: []byte("{}")}
	m.Headers.SetKey("order-1")
	for range 3 {
		r := d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
		fmt.Println(now.Format(time.DateTime), r.Outcome)
		now = now.Add(23 * time.Hour)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 2026-01-01 12:00:00 processed
	// 2026-01-02 11:00:00 duplicate
	// 2026-01-03 10:00:00 processed
}
