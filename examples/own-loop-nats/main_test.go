package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	n := brokertest.NewNATS(t, nil)
	js, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer js.Conn().Close()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	consumer, err := js.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "billing", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: "orders.new", Data: []byte("{}"), Header: nats.Header{"Idempotency-Key": {fmt.Sprint(i % 150)}}}); err != nil {
			t.Fatal(err)
		}
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- run(running, n.URL(), "ORDERS", "billing", t.TempDir())
		cancel() // it ended early: nothing more will be acknowledged
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		info, err := consumer.Info(ctx)
		if err != nil {
			t.Errorf("not everything is acknowledged: %v", err)
			break
		}
		if info.NumPending == 0 && info.NumAckPending == 0 {
			break
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Without a server, the first error names the command that starts one.
func TestNoServer(t *testing.T) {
	err := run(t.Context(), "nats://127.0.0.1:1", "ORDERS", "billing", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "connect to nats://127.0.0.1:1") || !strings.Contains(err.Error(), "go run github.com/nats-io/nats-server/v2") {
		t.Errorf("got %v, want that no server answers, and the command that starts one", err)
	}
}

// The stream does not create itself.
func TestNoStream(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	err := run(t.Context(), n.URL(), "ORDERS", "billing", t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "ORDERS") || !strings.Contains(err.Error(), "nats stream add ORDERS") {
		t.Errorf("got %v, want the name of the stream, and the command that creates it", err)
	}
}
