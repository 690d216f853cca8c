package natstransport

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Ensure creates the stream and the durable consumer if they do not exist, and then does the
// same as [Consumer.Check]. It never changes a stream or a durable consumer that exists.
//
// Ensure fills in the names that were given to [NewConsumer], and a MaxDeliver of 0 becomes -1.
// A StreamConfig without Subjects, Sources and Mirror creates no stream: the stream must exist
// then.
//
// Call Ensure before Run if nobody else sets up the server. Run itself creates nothing: it waits.
func (c *Consumer) Ensure(ctx context.Context, stream jetstream.StreamConfig, consumer jetstream.ConsumerConfig) error {
	stream.Name = c.stream
	consumer.Durable = c.durable
	consumer.MaxDeliver = orDefault(consumer.MaxDeliver, -1)
	if err := c.verify(&jetstream.ConsumerInfo{Config: consumer}); err != nil {
		return err
	}
	_, err := c.js.Stream(ctx, c.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) && (len(stream.Subjects) > 0 || len(stream.Sources) > 0 || stream.Mirror != nil) {
		_, err = c.js.CreateStream(ctx, stream)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another member was first
			err = nil
		}
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return fmt.Errorf("natstransport: %w: %s; give its Subjects, or create it: nats stream add %s", err, c.stream, c.stream)
	case err != nil:
		return fmt.Errorf("natstransport: create stream %s: %w", c.stream, err)
	}
	if _, err := c.js.Consumer(ctx, c.stream, c.durable); gone(err) {
		_, err := c.js.CreateConsumer(ctx, c.stream, consumer)
		if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) { // of another member
			return fmt.Errorf("natstransport: create consumer %s of stream %s: %w", c.durable, c.stream, err)
		}
	}
	return c.Check(ctx)
}
