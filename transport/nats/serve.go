package natstransport

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ending says why serve ended.
type ending string

const (
	stopping         ending = "the context ended"
	halted           ending = "the Deduplicator halted"
	connectionClosed ending = "the connection is closed"
	consumerGone     ending = "the consumer is gone"
)

// serve pulls until ctx ends, or another ending comes first.
func (b *binding) serve(ctx context.Context) ending {
	changes := b.conn.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer b.conn.RemoveStatusListener(changes)
	look := time.NewTicker(b.puller.heartbeat)
	defer look.Stop()
	again := time.NewTimer(0) // when to verify a doubtful binding
	defer again.Stop()
	<-again.C
	if !b.await(ctx) {
		return stopping
	}
	tries := 0
	doubt := func(why error, wait time.Duration) {
		b.suspend()
		if why != nil {
			b.status.bad("pull", why)
		}
		again.Reset(wait)
	}
	for {
		if b.current() == holds {
			if err := b.puller.pull(); err != nil {
				doubt(err, b.backoff(tries))
			}
		}
		select {
		case <-ctx.Done():
			return stopping
		case <-b.haltedCh:
			return halted
		case <-b.hand.room:
		case <-b.puller.ended:
			switch faults, why := b.puller.complaint(); {
			case errors.Is(why, jetstream.ErrConsumerDeleted):
				b.status.bad("pull", why)
				return consumerGone
			case why != nil:
				doubt(why, b.backoff(faults))
			}
		case <-look.C:
			if b.confirms != nil {
				b.confirms.expire(b.config.patience)
			}
			switch {
			case b.conn.IsClosed():
				return connectionClosed
			case b.puller.silent():
				doubt(jetstream.ErrNoHeartbeat, 0)
			}
		case change := <-changes:
			switch change {
			case nats.CLOSED:
				return connectionClosed
			case nats.RECONNECTING:
				doubt(errors.New("the connection is lost"), b.config.maxBackoff)
			case nats.CONNECTED:
				b.puller.forget() // the server has
				doubt(nil, 0)
			}
		case <-again.C:
			if !b.conn.IsConnected() {
				again.Reset(b.backoff(tries))
				tries++
				continue
			}
			doubts := b.suspensions()
			switch err := b.check(ctx); {
			case err == nil:
				tries = 0
				if !b.resume(doubts) { // all is well when it brings something
					again.Reset(b.backoff(tries))
				}
			case gone(err), errors.Is(err, errRefused):
				b.status.bad("pull", err)
				return consumerGone // bind judges it anew
			case errors.Is(err, nats.ErrConnectionClosed):
				return connectionClosed
			default:
				doubt(err, b.backoff(tries))
				tries++
			}
		}
	}
}

// check asks whether the binding holds: whether the consumer is the one it was
// made for, and still fit for use.
func (b *binding) check(ctx context.Context) error {
	info, err := b.consumer.lookup(ctx)
	if err != nil {
		return err
	}
	if !info.Created.Equal(b.created) {
		return jetstream.ErrConsumerNotFound
	}
	b.seen(info)
	return b.consumer.verify(info)
}

// await gives what an earlier member left unanswered the time to expire, where an
// order is asked for: the server hands it out before what it has not delivered yet,
// and would hand that out at once. It returns false if ctx ends first.
func (b *binding) await(ctx context.Context) bool {
	if b.config.OrderBy == nil || b.left == 0 {
		return ctx.Err() == nil
	}
	b.log.Info("waiting for what an earlier member has not answered, to keep its order", "messages", b.left, "at_most", b.longestWait)
	for end := b.now() + b.longestWait + time.Second; b.now() < end; {
		if !pause(ctx.Done(), min(b.config.heartbeat, end-b.now())) {
			return false
		}
		if info, err := b.consumer.lookup(ctx); err == nil && info.NumAckPending == 0 {
			break
		}
	}
	return ctx.Err() == nil
}
