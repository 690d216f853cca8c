package natstransport

import (
	"errors"
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
		switch _, err := b.check(b.watching); {
		case err == nil, unreachable(err):
		case b.watching.Err() == nil:
			b.complain(err)
		}
	}
}

// seen keeps what the server said of the consumer.
func (s *session) seen(info *jetstream.ConsumerInfo) {
	s.info.Store(info)
}

// errDeleted: so an advisory says, which may be of an earlier incarnation.
var errDeleted = errors.New("the consumer or its stream was deleted")

// listen subscribes to what the server says of the consumer to everybody.
func (b *binding) listen() error {
	stream, durable := b.consumer.stream, b.consumer.durable
	// While the hand is full no request waits at the server, whose end would tell.
	deleted := func(*nats.Msg) {
		b.complain(errDeleted)
	}
	for subject, heard := range map[string]nats.MsgHandler{
		"CONSUMER.DELETED." + stream + "." + durable:        deleted,
		"STREAM.DELETED." + stream:                          deleted,
		"CONSUMER.MAX_DELIVERIES." + stream + "." + durable: b.gaveUp,
	} {
		sub, err := b.conn.Subscribe("$JS.EVENT.ADVISORY."+subject, heard)
		if err != nil {
			return err
		}
		b.advisories = append(b.advisories, sub)
	}
	return nil
}

// gaveUp counts a message that the server gives up on, which it does if somebody
// bounds their deliveries.
func (b *binding) gaveUp(*nats.Msg) {
	b.consumer.counts.maxDeliveries.Add(1)
	b.log.Error("the server gave up on a message, whose deliveries somebody has bounded; it stays in the stream, unprocessed",
		"fix", fmt.Sprintf("nats consumer edit %s %s --max-deliver=-1", b.consumer.stream, b.consumer.durable))
}
