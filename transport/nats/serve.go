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
	if wait := b.holdBack(b.info.Load()); wait > 0 {
		again.Reset(wait)
	}
	tries := 0
	doubt := func(why error, wait time.Duration) {
		b.suspend()
		if b.order != nil {
			b.interrupt()
			if err := b.resubscribe(); err != nil {
				why = err // the connection is closed
			}
		}
		if why != nil {
			b.status.bad("pull", why)
		}
		again.Reset(wait)
	}
	for {
		if b.gathered() {
			b.goOn()
			again.Stop()
		}
		b.gatherMore()
		if b.hold == nil && b.current() == holds {
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
			case errors.Is(why, errLost):
				doubt(nil, 0)
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
			switch info, err := b.check(ctx); {
			case err == nil:
				tries = 0
				if b.order != nil { // while nothing was asked for, nothing could come
					b.order.renew(b.comesAgain())
				}
				if b.current() != holds && !b.resume(doubts) { // all is well when it brings something
					again.Reset(b.backoff(tries))
				} else if wait := b.holdBack(info); wait > 0 {
					again.Reset(wait)
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
func (b *binding) check(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := b.consumer.lookup(ctx)
	if err != nil {
		return nil, err
	}
	if !info.Created.Equal(b.created) {
		return nil, jetstream.ErrConsumerNotFound
	}
	b.seen(info)
	return info, b.consumer.verify(info)
}
