package driver_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// An operator looks at the record of a key, and then forgets it, so that the message runs again.
func ExampleInspector() {
	ctx := context.Background()
	store := memstore.New(nil) // every store of this module is an Inspector
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	charge := func(context.Context, *dedup.Message) ([]byte, error) { return []byte("charged"), nil }
	fmt.Println(d.Do(ctx, order("order-1", "{}", 0), charge).Outcome)

	var inspector driver.Inspector = store
	id := dedup.NewID("billing", "order-1")
	record, err := inspector.Lookup(ctx, id)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v at %v: %s\n", record.State, record.First, record.Result)

	if err := inspector.Forget(ctx, []dedup.ID{id}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(d.Do(ctx, order("order-1", "{}", 0), charge).Outcome)
	// Output:
	// processed
	// done at orders/0@0: charged
	// processed
}

// Stats tell how much a store remembers, and from when on its memory is complete.
func ExampleStats() {
	ctx := context.Background()
	created := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	store := memstore.New(&memstore.Options{Now: func() time.Time { return created }})
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for offset, key := range []string{"order-1", "order-2", "order-1"} {
		d.Do(ctx, order(key, "{}", int64(offset)), func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
	}
	stats, err := store.Stats(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("records:", stats.Records)
	fmt.Println("complete since:", stats.Vouch.Since)
	// Output:
	// records: 2
	// complete since: 2026-01-01 12:00:00 +0000 UTC
}

// Logs show IDs, and tools read them back.
func ExampleParseID() {
	id := dedup.NewID("billing", "order-1")
	parsed, err := driver.ParseID(id.String())
	fmt.Println(parsed == id, err)
	_, err = driver.ParseID("order-1")
	fmt.Println(err != nil)
	// Output:
	// true <nil>
	// true
}

// A store applies each operation by Step, and keeps the record that Step returns.
func ExampleStep() {
	now := time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC) // the store's time
	var high dedup.Token                                           // the highest token that the store issued
	var record driver.Record                                       // the stored record of this key: none yet

	claim := driver.Op{Kind: driver.OpClaim, Nonce: 1, Lease: 30 * time.Second, TTL: 24 * time.Hour}
	record, reply := driver.Step(record, claim, now, driver.NextToken(high, claim.Floor, now))
	high = max(high, record.Token)
	fmt.Println(claim.Kind, reply.Status)

	claim.Nonce = 2 // another run
	record, reply = driver.Step(record, claim, now, driver.NextToken(high, claim.Floor, now))
	fmt.Println(claim.Kind, reply.Status)

	complete := driver.Op{Kind: driver.OpComplete, Token: record.Token, TTL: 24 * time.Hour, Result: []byte("charged")}
	record, reply = driver.Step(record, complete, now, 0)
	fmt.Println(complete.Kind, reply.Status)
	fmt.Println(record.State, string(record.Result))
	// Output:
	// claim granted
	// claim held
	// complete ok
	// done charged
}

// Tokens grow by the clock, and by the highest token so far if the clock is behind.
func ExampleNextToken() {
	fmt.Println(driver.NextToken(3, 0, time.Unix(1, 0)))
	fmt.Println(driver.NextToken(5_000_000, 0, time.Unix(1, 0)))
	fmt.Println(driver.NextToken(3, 7_000_000, time.Unix(1, 0)))
	// Output:
	// 1000000
	// 5000001
	// 7000001
}

func order(key, value string, offset int64) *dedup.Message {
	m := &dedup.Message{Value: []byte(value), Position: dedup.Position{Source: "orders", Offset: offset}}
	m.Headers.SetKey(dedup.Key(key))
	return m
}

func shutdown(d *dedup.Deduplicator) {
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}
