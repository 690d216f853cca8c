package natstransport

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// watch looks at the consumer from time to time: its figures are for Status, and its
// settings may have been changed.
func (b *binding) watch() {
	tick := time.NewTicker(b.config.look)
	defer tick.Stop()
	for {
		select {
		case <-b.over:
			return
		case <-tick.C:
		}
		if b.current() != holds {
			continue // serve finds out
		}
		switch err := b.check(b.watching); {
		case err == nil, unreachable(err):
		case b.watching.Err() == nil:
			b.puller.complain(err)
		}
	}
}

// seen keeps what the server said of the consumer.
func (s *session) seen(info *jetstream.ConsumerInfo) {
	s.info.Store(info)
}

// listen counts the messages that the server gives up on, which it does if somebody
// bounds their deliveries.
func (b *binding) listen() (*nats.Subscription, error) {
	subject := fmt.Sprintf("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.%s.%s", b.consumer.stream, b.consumer.durable)
	return b.conn.Subscribe(subject, func(*nats.Msg) {
		b.consumer.counts.maxDeliveries.Add(1)
		b.log.Error("the server gave up on a message, whose deliveries somebody has bounded; it stays in the stream, unprocessed",
			"fix", fmt.Sprintf("nats consumer edit %s %s --max-deliver=-1", b.consumer.stream, b.consumer.durable))
	})
}
