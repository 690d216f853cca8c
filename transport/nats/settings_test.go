package natstransport

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
)

func TestLimitsOfTheConsumerAreKept(t *testing.T) {
	for name, change := range map[string]func(*jetstream.ConsumerConfig){
		"max batch":       func(o *jetstream.ConsumerConfig) { o.MaxRequestBatch = 3 },
		"max expires":     func(o *jetstream.ConsumerConfig) { o.MaxRequestExpires = 250 * time.Millisecond },
		"max ack pending": func(o *jetstream.ConsumerConfig) { o.MaxAckPending = 2 },
		"ephemeral state": func(o *jetstream.ConsumerConfig) { o.MemoryStorage = true },
	} {
		t.Run(name, func(t *testing.T) {
			js := connect(t, brokertest.NewNATS(t, nil))
			newStream(t, js, change)
			publish(t, js, 0, 50)
			d := newDeduplicator(t, nil)
			counted := &countingHandler{}
			o := quick(t)
			o.Logger = slog.New(counted)
			j := newJournal()
			longest := transporttest.Pauses(t)
			r := start(t, func(ctx context.Context) error { return newConsumer(t, js, o).Run(ctx, d, j.handle) })
			answered(t, js)
			idle := time.After(600 * time.Millisecond) // requests expire, and are made again
			<-idle
			publish(t, js, 50, 50)
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			j.check(t, 100)
			if got, pause := counted.count("jetstream fails"), longest(); got != 0 && pause < o.heartbeat {
				t.Errorf("failures logged: got %d, want none; the longest pause of this process was %v", got, pause)
			}
		})
	}
}

// A message that the consumer's own limit keeps away is said, not asked for again
// and again.
func TestMessageLargerThanTheConsumersLimit(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.MaxRequestMaxBytes = 500 })
	if _, err := js.Publish(deadline(t), "s.1", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	counted := &countingHandler{}
	o := quick(t)
	o.Logger = slog.New(counted)
	c := newConsumer(t, js, o)
	d := newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "a word on it", func() bool { return counted.count("jetstream fails") >= 1 })
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestPrefetchBytes(t *testing.T) {
	const messages, size = 40, 100_000
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	for i := range messages {
		m := jetstreamMessage("s.1", fmt.Sprint(i))
		m.Data = make([]byte, size)
		if _, err := js.PublishMsg(deadline(t), m); err != nil {
			t.Fatal(err)
		}
	}
	o := quick(t)
	o.PrefetchBytes = 2 << 20 // twice what a message can have
	c := newConsumer(t, js, o)
	d := newDeduplicator(t, &dedup.Options{Concurrency: messages})
	began, release := make(chan struct{}, messages), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			began <- struct{}{}
			<-release
			return nil, nil
		})
	})
	for range 10 {
		<-began
	}
	if got := info(t, js).NumAckPending; got > o.PrefetchBytes/size {
		t.Errorf("in hand: got %d messages, want at most %d, which is PrefetchBytes", got, o.PrefetchBytes/size)
	}
	close(release)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestDomain(t *testing.T) {
	n := brokertest.NewNATS(t, &brokertest.NATSOptions{More: func(o *server.Options) { o.JetStreamDomain = "hub" }})
	plain := connect(t, n)
	newStream(t, plain, nil)
	publish(t, plain, 0, 20)
	for name, make := range map[string]func() (jetstream.JetStream, error){
		"domain": func() (jetstream.JetStream, error) { return jetstream.NewWithDomain(plain.Conn(), "hub") },
		"prefix": func() (jetstream.JetStream, error) { return jetstream.NewWithAPIPrefix(plain.Conn(), "$JS.hub.API") },
	} {
		t.Run(name, func(t *testing.T) {
			js, err := make()
			if err != nil {
				t.Fatal(err)
			}
			_ = js.DeleteConsumer(deadline(t), "S", "c") // that of the other test
			addConsumer(t, js, nil)
			d := newDeduplicator(t, nil)
			j := newJournal()
			c := newConsumer(t, js, quick(t))
			if err := c.Check(t.Context()); err != nil {
				t.Error(err)
			}
			r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			j.check(t, 20)
			s := newSink(t, js, "s.sink", nil)
			if err := s.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// While its hand is full a member has no request at the server, and is not told
// that the consumer is gone. The new one counts from one again: that tells.
func TestConsumerRecreatedUnnoticed(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	change := func(o *jetstream.ConsumerConfig) { o.AckWait = 500 * time.Millisecond }
	newStream(t, js, change)
	publish(t, js, 0, 10)
	d := newDeduplicator(t, nil)
	counted := &countingHandler{}
	o := quick(t)
	o.Workers, o.Prefetch, o.Logger = 2, 2, slog.New(counted)
	c := newConsumer(t, js, o)
	j := newJournal()
	began, release := make(chan struct{}, 100), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			began <- struct{}{}
			<-release
			return j.handle(ctx, m)
		})
	})
	<-began
	<-began
	if err := js.DeleteConsumer(deadline(t), "S", "c"); err != nil {
		t.Fatal(err)
	}
	addConsumer(t, js, change)
	close(release)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 10)
	if got := counted.count("bound"); got != 2 {
		t.Errorf("bound: got %d times, want twice", got)
	}
}

func TestUnconfirmedAckIsAnsweredFromTheRecord(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 1)
	var counted outcomes
	d := newDeduplicator(t, &dedup.Options{Hooks: counted.hooks()})
	o := quick(t)
	o.ConfirmAcks = true
	c := newConsumer(t, js, o)
	j := newJournal()
	began, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			close(began)
			<-release
			return j.handle(ctx, m)
		})
	})
	<-began
	if err := js.DeleteConsumer(deadline(t), "S", "c"); err != nil { // nobody to confirm
		t.Fatal(err)
	}
	close(release)
	eventually(t, "it finished", func() bool { return j.seen() == 1 })
	addConsumer(t, js, patiently)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 1)
	if got := counted.count(dedup.Duplicate); got != 1 {
		t.Errorf("duplicates: got %d, want 1", got)
	}
}
