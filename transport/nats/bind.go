package natstransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errRefused: the consumer is there, and not fit for use.
var errRefused = errors.New("unsafe consumer")

// errClosed: nothing can be done any more.
var errClosed = errors.New("natstransport: the connection is closed and will not come back; connect with nats.MaxReconnects(-1)")

// gone says whether err means that the consumer is not there.
func gone(err error) bool {
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrConsumerDoesNotExist)
}

// lookup asks the server for the consumer.
func (c *Consumer) lookup(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.patience)
	defer cancel()
	consumer, err := c.js.Consumer(ctx, c.stream, c.durable)
	switch {
	case err == nil:
		return consumer.CachedInfo(), nil
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		return nil, c.refuse("pushes its messages, so that it cannot be told how many to send; it must be pulled", c.recreate())
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("natstransport: %w: %s; correct the name, or create it: nats stream add %s", err, c.stream, c.stream)
	case gone(err):
		return nil, fmt.Errorf("natstransport: %w: %s of stream %s; correct the name, or create it: %s", err, c.durable, c.stream, c.create())
	}
	return nil, fmt.Errorf("natstransport: consumer %s of stream %s: %w", c.durable, c.stream, err)
}

// verify refuses a consumer that would lose messages, or hand them out wrongly.
func (c *Consumer) verify(info *jetstream.ConsumerInfo) error {
	o := info.Config
	edit := fmt.Sprintf("nats consumer edit %s %s ", c.stream, c.durable)
	switch {
	case o.DeliverSubject != "":
		return c.refuse("pushes its messages, so that it cannot be told how many to send; it must be pulled", c.recreate())
	case o.AckPolicy != jetstream.AckExplicitPolicy:
		return c.refuse(fmt.Sprintf("has the ack policy %v, which acknowledges messages that are not recorded; it must be explicit", o.AckPolicy), c.recreate())
	case o.Durable == "":
		return c.refuse("is not durable: it vanishes, with its position, while nobody pulls", c.recreate())
	case o.MaxDeliver > 0:
		return c.refuse(fmt.Sprintf("has max_deliver %d, after which the server drops a message without a dead letter; it must be -1, and attempts are counted by dedup.Options.MaxAttempts", o.MaxDeliver), edit+"--max-deliver=-1")
	case o.HeadersOnly:
		return c.refuse("delivers headers without payloads", edit+"--no-headers-only")
	case len(o.PriorityGroups) > 0:
		return c.refuse(fmt.Sprintf("has the priority groups %q, which are not supported", o.PriorityGroups), c.recreate())
	}
	return nil
}

func (c *Consumer) refuse(why, fix string) error {
	return fmt.Errorf("natstransport: %w: %s of stream %s %s: %s", errRefused, c.durable, c.stream, why, fix)
}

func (c *Consumer) create() string {
	return fmt.Sprintf("nats consumer add %s %s --pull --ack=explicit --max-deliver=-1 --defaults", c.stream, c.durable)
}

func (c *Consumer) recreate() string {
	return fmt.Sprintf("nats consumer rm %s %s (it forgets its position), then %s", c.stream, c.durable, c.create())
}

// remarks logs what is not refused and yet should be known.
func (c *Consumer) remarks(log *slog.Logger, info *jetstream.ConsumerInfo) {
	o := info.Config
	if o.InactiveThreshold > 0 {
		log.Warn("the consumer is deleted, with its position, when nobody pulls for as long as its inactive_threshold", "inactive_threshold", o.InactiveThreshold)
	}
	if o.MaxAckPending > 0 && o.MaxAckPending < c.config.Prefetch {
		log.Warn("max_ack_pending of the consumer is less than one member's Prefetch: others get nothing while one is full", "max_ack_pending", o.MaxAckPending, "prefetch", c.config.Prefetch)
	}
}

// ackWait is how long the server waits for a word on a delivery: BackOff overrides
// AckWait, and may begin with more than it has later.
func ackWait(o jetstream.ConsumerConfig) time.Duration {
	if len(o.BackOff) > 0 {
		return slices.Min(o.BackOff)
	}
	return o.AckWait
}

func longestWait(o jetstream.ConsumerConfig) time.Duration {
	if len(o.BackOff) > 0 {
		return slices.Max(o.BackOff)
	}
	return o.AckWait
}

// bind binds to the consumer, and waits for it as long as need be. It returns nil
// when ctx ends, or why there is no use in waiting.
func (s *session) bind(ctx context.Context) (*binding, error) {
	for try := 0; ; try++ {
		if s.conn.IsClosed() {
			return nil, errClosed
		}
		b, err := s.tryBind(ctx)
		switch {
		case ctx.Err() != nil:
			if b != nil {
				b.abandon()
			}
			return nil, nil
		case err == nil:
			s.status.good()
			return b, nil
		case errors.Is(err, errRefused):
			return nil, err
		}
		s.status.bad("bind", err)
		pause(ctx.Done(), s.backoff(try))
	}
}

func (s *session) tryBind(ctx context.Context) (*binding, error) {
	info, err := s.consumer.lookup(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.consumer.verify(info); err != nil {
		return nil, err
	}
	if most := info.Config.MaxAckPending; s.config.Prefetch == 0 && most > 0 {
		s.hand.bound(most) // more would never come
	}
	b, err := s.newBinding(info)
	if err != nil {
		return nil, fmt.Errorf("natstransport: subscribe: %w", err)
	}
	s.consumer.counts.binds.Add(1)
	s.consumer.remarks(s.log, info)
	s.log.Info("bound to the consumer", "created", info.Created, "ack_wait", b.ackWait)
	return b, nil
}

// backoff grows from a tenth of a second.
func (s *session) backoff(try int) time.Duration {
	d := min(100*time.Millisecond<<min(try, 10), s.config.maxBackoff)
	return d/2 + rand.N(d/2+1)
}

// pause returns true if d has passed, false if over was closed before.
func pause(over <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-over:
		return false
	}
}

// unreachable says whether err means that the server did not answer.
func unreachable(err error) bool {
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded)
}
