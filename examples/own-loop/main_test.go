package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"orders": 2}, nil)
	var records []*kgo.Record
	for i := range 200 {
		records = append(records, &kgo.Record{Topic: "orders", Value: []byte("{}"), Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: fmt.Append(nil, i%150)}}})
	}
	if err := k.Produce(t.Context(), false, records...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, k.Addrs(), "orders", "billing", t.TempDir())
		cancel() // it ended early: nothing more will be committed
	}()
	if err := k.AwaitCommitted(ctx, "billing", "orders"); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
