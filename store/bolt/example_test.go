package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
)

// tempDir returns a directory for a store, and how to remove it.
func tempDir() (dir string, remove func()) {
	tmp, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(tmp, "billing"), func() { _ = os.RemoveAll(tmp) }
}

// process processes one message for each key, and prints the outcomes.
func process(store driver.Store, keys ...dedup.Key) {
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	for offset, key := range keys {
		m := &dedup.Message{Value: []byte("{}"), Position: driver.Position{Source: "orders", Offset: int64(offset)}}
		m.Headers.SetKey(key)
		r := d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) { return []byte("charged"), nil })
		fmt.Printf("%s: %v\n", key, r.Outcome)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// The store remembers its keys across a restart. Shut the Deduplicator down before you close it.
func ExampleOpen() {
	dir, remove := tempDir() // such as /var/lib/billing
	defer remove()
	for range 2 {
		store, err := boltstore.Open(dir, nil)
		if err != nil {
			log.Fatal(err)
		}
		process(store, "order-1")
		if err := store.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// order-1: processed
	// order-1: duplicate
}

// One process uses a directory at a time.
func ExampleOpen_inUse() {
	dir, remove := tempDir()
	defer remove()
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	_, err = boltstore.Open(dir, nil)
	fmt.Println("in use:", errors.Is(err, boltstore.ErrInUse))
	// Output: in use: true
}

// A backup is made while the store is in use. It is a store of its own.
func ExampleStore_Backup() {
	ctx := context.Background()
	dir, remove := tempDir()
	defer remove()
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	process(store, "order-1")
	if err := store.Backup(ctx, dir+"-backup"); err != nil {
		log.Fatal(err)
	}

	backup, err := boltstore.Open(dir+"-backup", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer backup.Close()
	record, err := backup.Lookup(ctx, dedup.NewID("billing", "order-1"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v: %s\n", record.State, record.Result)
	// Output:
	// order-1: processed
	// done: charged
}

// Verify reads everything in a store that is not open.
func ExampleVerify() {
	dir, remove := tempDir()
	defer remove()
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	process(store, "order-1", "order-2")
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}
	report, err := boltstore.Verify(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Kept, "records can be read,", len(report.Lost), "parts cannot")
	// Output:
	// order-1: processed
	// order-2: processed
	// 2 records can be read, 0 parts cannot
}

// With MaxBytes, Stats tell how full the store is.
func ExampleStore_Stats() {
	dir, remove := tempDir()
	defer remove()
	store, err := boltstore.Open(dir, &boltstore.Options{MaxBytes: 64 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	process(store, "order-1", "order-2", "order-1")
	stats, err := store.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("records:", stats.Records)
	fmt.Println("room left:", stats.Bytes < stats.Limit)
	// Output:
	// order-1: processed
	// order-2: processed
	// order-1: duplicate
	// records: 2
	// room left: true
}

// Records yields all that the store remembers.
func ExampleStore_Records() {
	dir, remove := tempDir()
	defer remove()
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	process(store, "order-1", "order-2")
	for r, err := range store.Records(context.Background()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%v, first seen at %v: %s\n", r.State, r.First, r.Result)
	}
	// Unordered output:
	// order-1: processed
	// order-2: processed
	// done, first seen at orders/0@0: charged
	// done, first seen at orders/0@1: charged
}
