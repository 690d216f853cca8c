package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// natsServer is a NATS server in this process. Its JetStream stores messages in files.
type natsServer struct {
	*brokertest.NATS
	js     jetstream.JetStream
	all    int // number of messages published
	marked int
}

const (
	ordersStream = "ORDERS"
	onceStream   = "ONCE"
	// ackWait is how soon the server delivers the messages of a killed relay again.
	ackWait = 2 * time.Second
)

func startNATS(ctx context.Context) (broker, error) {
	n, err := brokertest.StartNATS(nil)
	if err != nil {
		return nil, err
	}
	s := &natsServer{NATS: n}
	if s.js, err = n.Connect(nats.MaxReconnects(-1)); err == nil {
		err = s.prepare(ctx)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *natsServer) prepare(ctx context.Context) error {
	for stream, subject := range map[string]string{ordersStream: ordersTopic, onceStream: onceTopic} {
		if _, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{subject}}); err != nil {
			return err
		}
	}
	_, err := s.js.CreateConsumer(ctx, ordersStream, jetstream.ConsumerConfig{Durable: group, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxAckPending: 4096})
	return err
}

func (s *natsServer) Close() {
	if s.js != nil {
		s.js.Conn().Close()
	}
	s.NATS.Close()
}

func (s *natsServer) name() string { return "NATS JetStream (in process, on files)" }

func (s *natsServer) source() string { return s.URL() + "/" + ordersTopic + "?consumer=" + group }

func (s *natsServer) target() string { return s.URL() + "/" + onceTopic }

func (s *natsServer) publish(ctx context.Context, orders []order) error {
	futures := make([]jetstream.PubAckFuture, len(orders))
	for i, o := range orders {
		m := nats.NewMsg(ordersTopic)
		m.Data = o.payload
		m.Header.Set("Idempotency-Key", o.key)
		var err error
		if futures[i], err = s.js.PublishMsgAsync(m); err != nil {
			return err
		}
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
			s.all++
		case err := <-f.Err():
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *natsServer) committed() (done, all int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := s.js.Consumer(ctx, ordersStream, group)
	if err != nil {
		return 0, s.all // the next call asks again
	}
	info := c.CachedInfo()
	return s.all - int(info.NumPending) - info.NumAckPending, s.all
}

func (s *natsServer) mark() { s.marked, _ = s.committed() }

func (s *natsServer) moved() bool {
	done, all := s.committed()
	return done > s.marked || done == all
}

func (s *natsServer) output(ctx context.Context) ([]received, error) {
	stream, err := s.js.Stream(ctx, onceStream)
	if err != nil {
		return nil, err
	}
	last := stream.CachedInfo().State.LastSeq
	consumer, err := s.js.OrderedConsumer(ctx, onceStream, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	out := make([]received, 0, last)
	for uint64(len(out)) < last {
		want := min(1000, int(last)-len(out)) // with more, Fetch would wait for messages that do not exist
		batch, err := consumer.Fetch(want, jetstream.FetchMaxWait(time.Minute), jetstream.FetchHeartbeat(25*time.Second))
		if err != nil {
			return nil, err
		}
		before := len(out)
		for m := range batch.Messages() {
			out = append(out, received{
				key: m.Headers().Get("Idempotency-Key"), payload: string(m.Data()),
				ambiguous: strings.EqualFold(m.Headers().Get("Dedup-Ambiguous"), "true"),
			})
		}
		if err := batch.Error(); err != nil && !errors.Is(err, nats.ErrTimeout) {
			return nil, err
		}
		if len(out) == before {
			return nil, fmt.Errorf("the output ends after %d of %d messages", before, last)
		}
	}
	return out, nil
}
