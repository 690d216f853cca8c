package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup"
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
	conn := js.Conn()
	defer conn.Close()
	serving, stop := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- run(serving, n.URL(), t.TempDir(), func() { close(ready) })
		cancel()
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		t.Fatal(<-done)
	}
	ask := func(body string) *nats.Msg {
		t.Helper()
		m, err := conn.RequestMsgWithContext(ctx, &nats.Msg{
			Subject: "orders.place", Data: []byte(body), Header: nats.Header{dedup.HeaderIdempotencyKey: {"order-1"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, again, other := ask(`{"cents":100}`), ask(`{"cents":100}`), ask(`{"cents":999}`)
	if len(first.Data) == 0 || string(first.Data) != string(again.Data) {
		t.Errorf("the same request twice: got %q, then %q, want the same order", first.Data, again.Data)
	}
	if got := other.Header.Get("Nats-Service-Error-Code"); got != "422" {
		t.Errorf("another order under its key: got code %q, want 422", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Without a server, the first error names the command that starts one.
func TestNoServer(t *testing.T) {
	err := run(t.Context(), "nats://127.0.0.1:1", t.TempDir(), func() {})
	if err == nil || !strings.Contains(err.Error(), "connect to nats://127.0.0.1:1") || !strings.Contains(err.Error(), "go run github.com/nats-io/nats-server/v2") {
		t.Errorf("got %v, want that no server answers, and the command that starts one", err)
	}
}
