package dedup_test

import (
	"context"
	"fmt"
	"log"
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

// shutdown ends d before the example does.
func shutdown(d *dedup.Deduplicator) {
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// The program of the package comment: the second delivery of a message is a duplicate.
func Example() {
	ctx := context.Background()
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	handle := d.Wrap(func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("charged", string(m.Value))
		return nil, nil
	})
	for range 2 { // a loop over a broker's deliveries
		m := &dedup.Message{Value: []byte("order-1")}
		m.Headers.SetKey("order-1")
		if err := handle(ctx, m); err != nil {
			log.Fatal(err) // not settled: do not acknowledge, and do not go on
		}
		fmt.Println("acknowledge")
	}
	if err := d.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	// Output:
	// charged order-1
	// acknowledge
	// acknowledge
}

// A loop of your own: wrap the handler, and acknowledge a message when the wrapped handler returns
// nil.
func ExampleNew() {
	store := memstore.New(nil) // boltstore.Open in production
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), &dedup.Options{TTL: 48 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	handle := d.Wrap(func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("charged", string(m.Value))
		return nil, nil
	})
	for offset, key := range []string{"order-1", "order-2", "order-1"} {
		if err := handle(context.Background(), order(key, key, int64(offset))); err != nil {
			log.Fatal(err) // neither acknowledge nor go on
		}
		fmt.Println("acknowledge", offset)
	}
	// Output:
	// charged order-1
	// acknowledge 0
	// charged order-2
	// acknowledge 1
	// acknowledge 2
}

// A hook sees the end of each delivery. Here it counts the outcomes.
func ExampleHooks() {
	outcomes := map[dedup.Outcome]int{} // guard it by a mutex if there are several goroutines
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
			outcomes[e.Result.Outcome]++
			fmt.Println(e.Message.Position, e.Result.Outcome)
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	charge := func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }
	for offset, key := range []string{"order-1", "order-2", "order-1"} {
		d.Do(context.Background(), order(key, "{}", int64(offset)), charge)
	}
	fmt.Println("processed:", outcomes[dedup.Processed], "duplicates:", outcomes[dedup.Duplicate])
	// Output:
	// orders/0@0 processed
	// orders/0@1 processed
	// orders/0@2 duplicate
	// processed: 2 duplicates: 1
}

// The payment system refuses an id that it has seen. So the repeat of a run that may have had its
// effect has no second effect.
func ExampleClaim() {
	charged := map[dedup.ID]bool{} // the payment system
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	for range 2 {
		d.Do(context.Background(), order("order-1", "{}", 0), func(_ context.Context, m *dedup.Message) ([]byte, error) {
			fmt.Printf("run %d, ambiguous: %t\n", m.Claim.Attempt, m.Claim.Ambiguous)
			if charged[m.Claim.ID] {
				fmt.Println("charged already")
				return nil, nil
			}
			charged[m.Claim.ID] = true
			fmt.Println("charged")
			return nil, dedup.MaybeDone(context.DeadlineExceeded) // the reply got lost
		})
	}
	// Output:
	// run 1, ambiguous: false
	// charged
	// run 2, ambiguous: true
	// charged already
}
