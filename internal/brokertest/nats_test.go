package brokertest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestNATSKeepsStreamsAcrossRestart(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	n := NewNATS(t, nil)
	js, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer js.Conn().Close()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.FileStorage}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if _, err := js.Publish(ctx, "s.x", fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	url := n.URL()
	n.Stop()
	if c, err := net.Dial("tcp", strings.TrimPrefix(url, "nats://")); err == nil {
		_ = c.Close()
		t.Error("a stopped server accepted a connection")
	}
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	if got := n.URL(); got != url {
		t.Errorf("address after the restart: got %s, want %s", got, url)
	}
	again, err := n.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer again.Conn().Close()
	s, err := again.Stream(ctx, "S")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 10 {
		t.Errorf("messages after the restart: got %d, want 10", got)
	}
}

func TestNATSRestartAfterClose(t *testing.T) {
	n := NewNATS(t, nil)
	n.Close()
	if err := n.Restart(); err == nil {
		t.Error("got nil, want an error")
	}
}

func TestNATSCutConnections(t *testing.T) {
	n := NewNATS(t, nil)
	lost := make(chan struct{}, 1)
	js, err := n.Connect(nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.CutConnections(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
	case <-time.After(2 * time.Minute):
		t.Error("the connection was not cut")
	}
	js.Conn().Close()
}
