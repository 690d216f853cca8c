package kafkabench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/bench/harness"
)

const commitEvery = 1000

// readers consumes as kafka-go's documentation shows it for a consumer group that
// manages its own offsets. MaxWait is shorter than its default of 10 s, because the
// last messages and the end of the round would wait for it.
func (b *broker) readers(ctx context.Context, r *harness.Round) (err error) {
	topic, err := b.topic(ctx, r.Messages)
	if err != nil {
		return err
	}
	b.begin(r)
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: b.group(), Brokers: b.addrs, Topics: []string{topic.name}, StartOffset: kafka.FirstOffset,
	})
	if err != nil {
		return err
	}
	defer func() {
		if e := group.Close(); err == nil {
			err = e
		}
	}()
	gen, err := group.Next(ctx)
	if err != nil {
		return err
	}
	var handled atomic.Int64
	done := make(chan struct{})
	var once sync.Once
	var failed atomic.Pointer[error]
	end := func(err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
		once.Do(func() { close(done) })
	}
	for _, a := range gen.Assignments[topic.name] {
		gen.Start(func(ctx context.Context) {
			reader := kafka.NewReader(kafka.ReaderConfig{Brokers: b.addrs, Topic: topic.name, Partition: a.ID, MaxWait: 250 * time.Millisecond}) //nolint:forbidigo // the Reader is measured here
			defer reader.Close()
			if err := reader.SetOffset(a.Offset); err != nil {
				end(err)
				return
			}
			for n := 1; ; n++ {
				m, err := reader.ReadMessage(ctx)
				if err != nil {
					if ctx.Err() == nil {
						end(err)
					}
					return
				}
				if n%commitEvery == 0 {
					if err := gen.CommitOffsets(map[string]map[int]int64{topic.name: {a.ID: m.Offset + 1}}); err != nil {
						end(err)
						return
					}
				}
				if handled.Add(1) == int64(r.Messages) {
					end(nil)
				}
			}
		})
	}
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.Stop()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
