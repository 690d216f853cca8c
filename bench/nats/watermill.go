package natsbench

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
)

// inWatermill is Watermill's router with its Deduplicator, keyed by the header. Its
// default, a checksum of the payload, takes some different messages for duplicates.
// It forgets all keys when the process ends, and a message whose handler fails is
// lost.
type inWatermill struct{}

func (inWatermill) duplicates() bool { return true }

func (inWatermill) start(ctx context.Context, t *task) (func() error, error) {
	existing := func(string, string) jetstream.ConsumerConfig { return jetstream.ConsumerConfig{Name: t.durable} }
	subscriber, err := wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
		Conn: t.js.Conn(), Logger: watermill.NopLogger{}, ResourceInitializer: wmjetstream.ExistingConsumer(existing, ""),
	})
	if err != nil {
		return nil, err
	}
	repository, err := middleware.NewMapExpiringKeyRepository(work.TTL)
	if err != nil {
		return nil, err
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	router.AddMiddleware((&middleware.Deduplicator{
		KeyFactory: middleware.NewMessageHasherFromMetadataField(dedup.HeaderIdempotencyKey),
		Repository: repository,
		Timeout:    time.Minute, // of one look into the map
	}).Middleware)
	router.AddConsumerHandler("bench", t.stream, subscriber, func(*message.Message) error {
		t.handled.Add(1)
		return nil
	})
	run, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- router.Run(run) }()
	return func() error {
		cancel()
		return errors.Join(<-ended, router.Close())
	}, nil
}
