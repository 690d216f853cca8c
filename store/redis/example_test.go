package redisstore_test

import (
	"context"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// example is what redistest needs of a test.
type example struct{ end func() }

func (e *example) Helper()           {}
func (e *example) Cleanup(f func())  { e.end = f }
func (e *example) Fatal(args ...any) { log.Fatal(args...) }

// startExample starts a Redis server in this process. The returned function ends it.
func startExample() (addr string, end func()) {
	var e example
	server := redistest.Run(&e)
	return server.Addr(), e.end
}

// Two processes share a store, and process each key once between them.
func ExampleNew() {
	addr, end := startExample()
	defer end()
	for process := range 2 {
		client := redis.NewClient(&redis.Options{Addr: addr}) // or a Sentinel's or a cluster's client
		store, err := redisstore.New(client, nil)
		if err != nil {
			log.Fatal(err)
		}
		d, err := dedup.New(store, "billing", dedup.HeaderKey(), nil)
		if err != nil {
			log.Fatal(err)
		}
		m := &dedup.Message{Value: []byte("{}")}
		m.Headers.SetKey("order-1")
		r := d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) {
			return fmt.Appendf(nil, "charged by process %d", process), nil
		})
		fmt.Printf("process %d: %v, %s\n", process, r.Outcome, r.Value)
		if err := d.Shutdown(context.Background()); err != nil {
			log.Fatal(err)
		}
		if err := client.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// process 0: processed, charged by process 0
	// process 1: duplicate, charged by process 0
}

// At its start, a program can say at once what is wrong with the server.
func ExampleStore_Check() {
	addr, end := startExample()
	defer end()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer client.Close()
	store, err := redisstore.New(client, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.Check(context.Background()))
	// Output: <nil>
}
