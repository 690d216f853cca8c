package kafkabench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

const partitions = 6

// broker is the Kafka cluster that the contenders consume from.
type broker struct {
	addrs  []string
	pid    int // 0: not ours
	topics map[int]*topic
	target string // the topic that relays write to; empty: not made yet
	groups int
}

// topic holds the messages of a round.
type topic struct {
	name  string
	fresh int // messages that are no duplicates
}

// topic returns one of n messages, the same for every contender that takes n.
func (b *broker) topic(ctx context.Context, n int) (*topic, error) {
	if t := b.topics[n]; t != nil {
		return t, nil
	}
	t := &topic{name: fmt.Sprintf("orders-%d-%s", n, rand.Text()[:6])}
	err := b.client(func(cl *kgo.Client) error {
		admin := kadm.NewClient(cl)
		if _, err := admin.CreateTopic(ctx, partitions, -1, nil, t.name); err != nil {
			return err
		}
		if err := b.coordinated(ctx, admin); err != nil {
			return err
		}
		messages := work.New(1).Next(n)
		t.fresh = messages.Fresh
		var first kgo.FirstErrPromise
		for _, m := range messages.Messages {
			cl.Produce(ctx, &kgo.Record{
				Topic:     t.name,
				Partition: m.Position.Partition % partitions,
				Value:     m.Value,
				Headers:   []kgo.RecordHeader{{Key: m.Headers[0].Key, Value: m.Headers[0].Value}},
			}, first.Promise())
		}
		return first.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("fill topic %s: %w", t.name, err)
	}
	if b.topics == nil {
		b.topics = make(map[int]*topic)
	}
	b.topics[n] = t
	return t, nil
}

// coordinated waits until groups have a coordinator: a fresh broker makes one ready
// only when it is asked for it, and refuses meanwhile.
func (b *broker) coordinated(ctx context.Context, admin *kadm.Client) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := admin.FetchOffsets(ctx, b.group())
		switch {
		case errors.Is(err, kerr.GroupIDNotFound): // so says a coordinator
			return nil
		case !errors.Is(err, kerr.CoordinatorNotAvailable):
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (b *broker) client(f func(*kgo.Client) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err != nil {
		return err
	}
	defer cl.Close()
	return f(cl)
}

// group returns the name of a new group.
func (b *broker) group() string {
	b.groups++
	return fmt.Sprintf("bench-%s-%d", rand.Text()[:6], b.groups)
}

// begin starts the clock.
func (b *broker) begin(r *harness.Round) {
	if b.pid != 0 {
		r.Server(b.pid)
	}
	r.Start()
}

func (b *broker) close() error {
	if b.pid != 0 {
		return nil // it ends with its process
	}
	names := []string{b.target}
	for _, t := range b.topics {
		names = append(names, t.name)
	}
	return b.client(func(cl *kgo.Client) error {
		_, err := kadm.NewClient(cl).DeleteTopics(context.Background(), names...)
		return err
	})
}
