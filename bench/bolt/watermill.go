package boltbench

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
)

// inWatermill is Watermill's Deduplicator, a map with a mutex, keyed by a header:
// its default, a checksum of the payload, takes some different messages for
// duplicates. It marks a key before the handler runs, and forgets all when the
// process ends.
type inWatermill struct {
	stream     *work.Stream
	repository middleware.ExpiringKeyRepository
}

func (w *inWatermill) round(ctx context.Context, r *harness.Round) error {
	if r.Number == 0 {
		repository, err := middleware.NewMapExpiringKeyRepository(work.TTL)
		if err != nil {
			return err
		}
		w.repository = repository
	}
	d := &middleware.Deduplicator{
		KeyFactory: middleware.NewMessageHasherFromMetadataField(dedup.HeaderIdempotencyKey),
		Repository: w.repository,
		Timeout:    time.Minute, // of one look into the map
	}
	b := w.stream.Next(r.Messages)
	ms := make([]*message.Message, len(b.Messages))
	for i, m := range b.Messages {
		key := b.Keys[i].String()
		ms[i] = message.NewMessage(key, message.Payload(m.Value))
		ms[i].SetContext(ctx)
		ms[i].Metadata.Set(dedup.HeaderIdempotencyKey, key)
	}
	handle := d.Middleware(func(*message.Message) ([]*message.Message, error) {
		b.Handled(1)
		return nil, nil
	})
	r.Start()
	for _, m := range ms {
		if _, err := handle(m); err != nil {
			return err
		}
	}
	r.Stop()
	return b.Check()
}
