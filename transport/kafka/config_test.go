package kafkatransport

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestConfigDefaults(t *testing.T) {
	c, err := (*Config)(nil).filled()
	if err != nil {
		t.Fatal(err)
	}
	if c.Logger == nil {
		t.Error("Logger: got nil")
	}
	c.Logger = nil
	want := Config{
		ClientID:           "oncequeue",
		SessionTimeout:     30 * time.Second,
		HeartbeatInterval:  3 * time.Second,
		RebalanceTimeout:   time.Minute,
		DrainTimeout:       20 * time.Second,
		CommitInterval:     time.Second,
		StartOffset:        kafka.FirstOffset,
		Lanes:              256,
		BatchSize:          256,
		MaxInFlight:        4096,
		MaxAhead:           1_000_000,
		MaxInFlightBytes:   16 << 20,
		OutOfRange:         Fail,
		TotalInFlight:      65536,
		TotalInFlightBytes: 256 << 20,
		FetchMaxBytes:      1 << 20,
		MaxWait:            500 * time.Millisecond,
		watchInterval:      5 * time.Second,
		metadataTTL:        6 * time.Second,
		answerWithin:       5 * time.Second,
		fetchPatience:      10 * time.Second,
		leaveTimeout:       3 * time.Second,
	}
	if c != want {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
}

func TestConfigShortSession(t *testing.T) {
	given := Config{SessionTimeout: 6 * time.Second}
	c, err := given.filled()
	if err != nil {
		t.Fatal(err)
	}
	if c.HeartbeatInterval != time.Second {
		t.Errorf("HeartbeatInterval: got %v, want 1s, a sixth of the session", c.HeartbeatInterval)
	}
	if c.DrainTimeout != 4*time.Second {
		t.Errorf("DrainTimeout: got %v, want 4s, the session less two heartbeats", c.DrainTimeout)
	}
	if given != (Config{SessionTimeout: 6 * time.Second}) {
		t.Errorf("the caller's Config was written to: %+v", given)
	}
}

// A caller of Run alone does not think of batches.
func TestConfigFewInFlight(t *testing.T) {
	c, err := (&Config{MaxInFlight: 10}).filled()
	if err != nil || c.BatchSize != 10 {
		t.Errorf("MaxInFlight 10: got BatchSize %d and %v, want 10", c.BatchSize, err)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, x := range []struct {
		config Config
		want   []string // in the error
	}{
		{Config{DrainTimeout: 25 * time.Second}, []string{"25s", "24s", "30s", "3s"}},
		{Config{RebalanceTimeout: 10 * time.Second, DrainTimeout: 5 * time.Second}, []string{"DrainTimeout 5s", "4s", "10s"}},
		{Config{RebalanceTimeout: time.Second}, []string{"RebalanceTimeout 1s"}},
		{Config{HeartbeatInterval: 11 * time.Second}, []string{"11s", "30s"}},
		{Config{SessionTimeout: -1}, []string{"SessionTimeout"}},
		{Config{Lanes: -1}, []string{"Lanes"}},
		{Config{BatchSize: 1025}, []string{"1025", "1024"}},
		{Config{MaxInFlight: 100, BatchSize: 256}, []string{"100", "256"}},
		{Config{MaxAhead: -1}, []string{"MaxAhead"}},
		{Config{MaxWait: time.Second}, []string{"1s", "500ms"}},
		{Config{StartOffset: 7}, []string{"7", "kafka.FirstOffset"}},
	} {
		_, err := NewConsumer([]string{"127.0.0.1:9092"}, "g", []string{"t"}, &x.config)
		wantError(t, err, x.want...)
	}
}

func TestArgumentsRefused(t *testing.T) {
	for _, x := range []struct {
		brokers []string
		group   string
		topics  []string
		want    string
	}{
		{nil, "g", []string{"t"}, "no broker"},
		{[]string{"localhost"}, "g", []string{"t"}, `"localhost"`},
		{[]string{":9092"}, "g", []string{"t"}, "no host"},
		{[]string{"localhost:kafka"}, "g", []string{"t"}, `"kafka"`},
		{[]string{"localhost:70000"}, "g", []string{"t"}, `"70000"`},
		{[]string{"localhost:9092"}, "", []string{"t"}, "group"},
		{[]string{"localhost:9092"}, "g", nil, "no topic"},
		{[]string{"localhost:9092"}, "g", []string{"a b"}, `"a b"`},
		{[]string{"localhost:9092"}, "g", []string{""}, `""`},
	} {
		_, err := NewConsumer(x.brokers, x.group, x.topics, nil)
		wantError(t, err, x.want)
	}
	_, err := NewSink(nil, "t", nil)
	wantError(t, err, "no broker")
	_, err = NewSink([]string{"localhost:9092"}, "a/b", nil)
	wantError(t, err, `"a/b"`)
	_, err = NewSink([]string{"localhost:9092"}, "t", &SinkConfig{Timeout: -1})
	wantError(t, err, "Timeout")
	_, err = NewSink([]string{"localhost:9092"}, "t", &SinkConfig{Compression: 9})
	wantError(t, err, "compression 9")
}

func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got error %v, want one line with %q", err, w)
		}
	}
}

func TestCheck(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	ctx := context.Background()
	if err := newConsumer(t, k, "g", nil, "t").Check(ctx); err != nil {
		t.Errorf("consumer: got %v, want nil", err)
	}
	err := newConsumer(t, k, "g", nil, "t", "missing").Check(ctx)
	wantError(t, err, `"missing"`, "does not exist", "create it")

	sink := newSink(t, k, "t", nil)
	if err := sink.Check(ctx); err != nil {
		t.Errorf("sink: got %v, want nil", err)
	}
	if err := newSink(t, k, "", nil).Check(ctx); err != nil {
		t.Errorf("sink without a topic: got %v, want nil", err)
	}
	wantError(t, newSink(t, k, "missing", nil).Check(ctx), `"missing"`, "create it")

	nobody := unusedAddr(t)
	c, err := NewConsumer([]string{nobody}, "g", []string{"t"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, c.Check(ctx), nobody, "connection refused", "check the address")
}

// unusedAddr returns a loopback address where nobody listens.
func unusedAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func newSink(t *testing.T, k *brokertest.Kafka, topic string, c *SinkConfig) *Sink {
	t.Helper()
	return newSinkTo(t, k.Addrs(), topic, c)
}

func newSinkTo(t *testing.T, addrs []string, topic string, c *SinkConfig) *Sink {
	t.Helper()
	s, err := NewSink(addrs, topic, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}
