package natsbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

// maxAckPending is more than the server's default of 1,000. With that default, a
// consumer that waits for a disk has no next batch at hand.
const maxAckPending = 10_000

// consumer consumes a stream in one way.
type consumer interface {
	// duplicates reports whether the stream has duplicates.
	duplicates() bool
	// start begins to consume, and returns a function that ends the consumer. handled
	// counts the messages that were handled; at the end, all of them.
	start(ctx context.Context, t *task) (stop func() error, err error)
}

// task is the work of one consumer in one round.
type task struct {
	server   *server
	js       jetstream.JetStream // a connection of its own
	stream   string
	durable  string
	messages int
	dir      string
	handled  atomic.Int64
	parked   atomic.Int64
}

// consume is a round: a new durable consumer, from the beginning of the stream until
// all is acknowledged.
func (s *server) consume(ctx context.Context, r *harness.Round, c consumer) (err error) {
	stream, b, err := s.stream(ctx, r.Messages, c.duplicates())
	if err != nil {
		return err
	}
	t := &task{server: s, stream: stream, durable: s.name("c"), messages: r.Messages, dir: filepath.Join(r.Dir, s.name("round"))}
	if t.js, err = s.connect(); err != nil {
		return err
	}
	defer t.js.Conn().Close()
	if _, err := s.js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: t.durable, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1, MaxAckPending: maxAckPending}); err != nil {
		return err
	}
	r.Server(s.cmd.Process.Pid)
	r.Start()
	stop, err := c.start(ctx, t)
	if err != nil {
		return err
	}
	if err := s.acknowledged(ctx, t, int64(b.Fresh)); err != nil {
		return errors.Join(err, stop())
	}
	r.Stop()
	if err := stop(); err != nil {
		return err
	}
	if got := int(t.handled.Load() + t.parked.Load()); got != b.Fresh {
		return fmt.Errorf("%d messages were handled, want %d", got, b.Fresh)
	}
	return s.js.DeleteConsumer(ctx, stream, t.durable)
}

// acknowledged waits until all is handled, and the server knows. It asks the server
// only when that must be close.
func (s *server) acknowledged(ctx context.Context, t *task, fresh int64) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if t.handled.Load()+t.parked.Load() < fresh {
			time.Sleep(time.Millisecond)
			continue
		}
		c, err := s.js.Consumer(ctx, t.stream, t.durable)
		if err != nil {
			return err
		}
		if i := c.CachedInfo(); i.NumPending == 0 && i.NumAckPending == 0 {
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// bare is the loop that users of the client library write.
type bare struct{}

func (bare) duplicates() bool { return false }

func (bare) start(ctx context.Context, t *task) (func() error, error) {
	c, err := t.js.Consumer(ctx, t.stream, t.durable)
	if err != nil {
		return nil, err
	}
	going, err := c.Consume(func(m jetstream.Msg) {
		if m.Ack() == nil {
			t.handled.Add(1)
		}
	})
	if err != nil {
		return nil, err
	}
	return func() error { going.Stop(); return nil }, nil
}

// double waits for each acknowledgement to be confirmed, for 64 at once.
type double struct{}

func (double) duplicates() bool { return false }

func (double) start(ctx context.Context, t *task) (func() error, error) {
	c, err := t.js.Consumer(ctx, t.stream, t.durable)
	if err != nil {
		return nil, err
	}
	const inFlight = 64
	slots := make(chan struct{}, inFlight)
	going, err := c.Consume(func(m jetstream.Msg) {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			if m.DoubleAck(ctx) == nil {
				t.handled.Add(1)
			}
		}()
	})
	if err != nil {
		return nil, err
	}
	return func() error { going.Stop(); return nil }, nil
}

// ours is a natstransport.Consumer.
type ours struct {
	batch, bolt, confirm bool
	poison               func(*dedup.Message) bool // fails now; nil: none does
}

// sick is one message in a thousand.
func sick(m *dedup.Message) bool { return m.Position.Offset%1000 == 500 }

func once(m *dedup.Message) bool   { return sick(m) && m.Delivery == 1 }
func always(m *dedup.Message) bool { return sick(m) }

func (o ours) duplicates() bool { return o.bolt }

func (o ours) start(ctx context.Context, t *task) (func() error, error) {
	var store driver.Store = memstore.New(nil)
	closeStore := func() error { return nil }
	if o.bolt {
		b, err := boltstore.Open(t.dir, nil)
		if err != nil {
			return nil, err
		}
		store, closeStore = b, b.Close
	}
	options := &dedup.Options{TTL: work.TTL}
	if o.poison != nil {
		options.MaxAttempts = 3
		options.Backoff = func(int) time.Duration { return 10 * time.Millisecond }
		options.DeadLetter = func(context.Context, *dedup.Message, error) error {
			t.parked.Add(1)
			return nil
		}
	}
	d, err := dedup.New(store, work.Scope, dedup.HeaderKey(), options)
	if err != nil {
		return nil, err
	}
	c, err := natstransport.NewConsumer(t.js, t.stream, t.durable, &natstransport.Config{ConfirmAcks: o.confirm})
	if err != nil {
		return nil, err
	}
	handle := func(_ context.Context, m *dedup.Message) ([]byte, error) {
		if o.poison != nil && o.poison(m) {
			return nil, errPoison
		}
		t.handled.Add(1)
		return nil, nil
	}
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		if !o.batch {
			ended <- c.Run(run, d, handle)
			return
		}
		ended <- c.RunBatch(run, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
			answers := make([]dedup.Answer, len(ms))
			for i, m := range ms {
				_, answers[i].Err = handle(ctx, m)
			}
			return answers
		})
	}()
	return func() error {
		cancel()
		return errors.Join(<-ended, d.Shutdown(ctx), closeStore())
	}, nil
}

var errPoison = errors.New("poison")
