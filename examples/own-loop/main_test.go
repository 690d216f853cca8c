package main

import (
	"context"
	"fmt"
	"strings"
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

// Without a broker, the first error names the command that starts one.
func TestNoServer(t *testing.T) {
	err := run(t.Context(), []string{"127.0.0.1:1"}, "orders", "billing", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "no broker of 127.0.0.1:1 answers") || !strings.Contains(err.Error(), "scripts/kafka.sh start") {
		t.Errorf("got %v, want that no broker answers, and the command that starts one", err)
	}
}

// The topic does not create itself.
func TestNoTopic(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"other": 1}, nil)
	err := run(t.Context(), k.Addrs(), "orders", "billing", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "the topic does not exist") || !strings.Contains(err.Error(), "--create --topic orders") {
		t.Errorf("got %v, want that the topic does not exist, and the command that creates it", err)
	}
}
