package kafkabench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
)

// watermill is Watermill's router with its Deduplicator, keyed by the header: its
// default, a checksum of the payload, takes some different messages for duplicates.
// It marks a key before the handler runs. Offsets are committed each second, even if
// the handler failed.
func (b *broker) watermill(ctx context.Context, r *harness.Round) error {
	topic, err := b.topic(ctx, r.Messages)
	if err != nil {
		return err
	}
	config := watermillkafka.DefaultSaramaSubscriberConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	subscriber, err := watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: b.addrs, Unmarshaler: watermillkafka.DefaultMarshaler{}, ConsumerGroup: b.group(), OverwriteSaramaConfig: config,
	}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	repository, err := middleware.NewMapExpiringKeyRepository(work.TTL)
	if err != nil {
		return err
	}
	deduplicator := &middleware.Deduplicator{
		KeyFactory: middleware.NewMessageHasherFromMetadataField(dedup.HeaderIdempotencyKey),
		Repository: repository,
		Timeout:    time.Minute, // of one look into the map
	}
	router.AddMiddleware(deduplicator.Middleware)
	run, stop := context.WithCancel(ctx)
	defer stop()
	var handled atomic.Int64
	router.AddConsumerHandler("bench", topic.name, subscriber, func(*message.Message) error {
		if handled.Add(1) == int64(topic.fresh) {
			r.Stop()
			stop()
		}
		return nil
	})
	b.begin(r)
	if err := router.Run(run); err != nil {
		return err
	}
	if got := int(handled.Load()); got != topic.fresh {
		return fmt.Errorf("%d of %d messages were handled, want %d", got, r.Messages, topic.fresh)
	}
	return ctx.Err()
}
