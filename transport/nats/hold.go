package natstransport

import (
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// hold keeps what is new from passing what has to come again: messages that an earlier
// member has not answered, or that were lost on their way. First it asks for nothing
// until these have expired: the server would deliver what is new. Then it asks for them,
// and lets nothing begin until they are all here: the server delivers them in no order,
// but before what is new.
type hold struct {
	delivered uint64        // number of the last delivery
	left      time.Duration // for which to wait; what passes while the server or this process stands still counts as one interval
	seen      time.Duration // when the server was last asked, as session.now
	gathering bool          // what comes again may come now
	came      int           // of it, when the server was last asked
}

// holdBack says for how long nothing new is to be asked for until the consumer is looked
// at again, to keep the order: 0 if something may be. info is what was said of the
// consumer. After a doubt nothing has been asked for at this inbox, so that what the
// server counts has come, if it was not lost.
func (b *binding) holdBack(info *jetstream.ConsumerInfo) (wait time.Duration) {
	if b.order == nil {
		return 0
	}
	now, delivered, span := b.now(), info.Delivered.Consumer, b.longestWait+b.config.slack
	interval := min(b.config.heartbeat, span/3)
	h, before := b.hold, now
	if h != nil {
		before = h.seen
		h.left -= min(now-h.seen, interval)
		h.seen = now
	}
	switch {
	case b.shared(): // there is no order to keep
		b.flow.count(delivered)
		if h != nil || b.order.isShut() {
			b.goOn()
		}
		return 0
	case h == nil && b.flow.complete(delivered) && !b.order.isShut():
		return 0
	case h == nil && b.flow.complete(delivered): // it was interrupted
		b.hold = &hold{left: span, seen: now}
		b.gather(info)
	case info.NumAckPending == 0: // nothing can come again
		if h == nil || !h.gathering { // else something new may have come since
			b.flow.count(delivered)
		}
		b.goOn()
		return 0
	case h == nil:
		// Members that wait for each other must not go on at the same moment, or they would
		// never see each other.
		b.hold = &hold{delivered: delivered, left: span + rand.N(b.config.slack), seen: now}
		b.log.Warn("waiting for messages that did not arrive, or that an earlier member has not answered, to keep the order",
			"without_answer", info.NumAckPending, "for", span)
	case h.gathering:
		n, _ := b.order.gathered()
		late := info.NumAckPending > b.hand.count()
		if n == h.came && (!late || h.left <= 0) {
			if late {
				b.log.Warn("messages that were expected again have not come, going on without them: they may come late in their order", "without_answer", info.NumAckPending)
			}
			b.goOn()
			return 0
		}
		b.gather(info)
	case delivered < h.delivered || delivered > h.delivered && before < b.puller.ends():
		// A server forgot some, or served a connection that only it believed in.
		h.delivered, h.left = delivered, span
	case delivered != h.delivered:
		b.log.Warn("another member takes messages of this consumer, so that their order cannot be kept: give each member a consumer of its own")
		b.sharedAt.Store(b.conn.Stats().Reconnects + 1)
		b.flow.count(delivered)
		b.goOn()
		return 0
	case h.left <= 0:
		h.left = span
		b.flow.count(delivered)
		b.gather(info)
	}
	b.status.good()
	if b.hold.gathering {
		return min(interval, time.Second)
	}
	return min(interval, b.hold.left)
}

// gather asks for what comes again, and for one more: when that comes, there is no other.
// A request may bring less than was asked for.
func (b *binding) gather(info *jetstream.ConsumerInfo) {
	b.order.shutDown()
	h := b.hold
	h.gathering = true
	h.came, _ = b.order.gathered()
	if b.hand.waiting() {
		return
	}
	if err := b.puller.pullAgain(max(info.NumAckPending-b.hand.count(), 0) + 1); err != nil {
		b.complain(err)
	}
}

// gatherMore asks for more when a request has brought what it could.
func (b *binding) gatherMore() {
	if b.hold == nil || !b.hold.gathering || b.hand.waiting() {
		return
	}
	if n, _ := b.order.gathered(); n > b.hold.came {
		b.gather(b.info.Load())
	}
}

// gathered says whether all that comes again is here.
func (b *binding) gathered() bool {
	if b.hold == nil || !b.hold.gathering {
		return false
	}
	_, all := b.order.gathered()
	return all
}

// goOn ends the hold.
func (b *binding) goOn() {
	b.hold = nil
	first := b.order.open()
	b.busy.Go(func() { // there may be more than the queue takes
		for _, d := range first {
			b.begin(d)
		}
	})
}

// interrupt is called when the connection broke, or the server is in doubt. A server that
// was away needs a moment to find what has expired. What was asked for may be lost again.
func (b *binding) interrupt() {
	switch {
	case b.hold == nil:
	case b.hold.gathering:
		b.hold = nil
		b.order.misses()
	default:
		b.hold.left = max(b.hold.left, b.config.slack)
	}
}

// shared says that another member was seen to take messages since the connection stands:
// then a delivery that is missing here is theirs.
func (b *binding) shared() bool {
	at := b.sharedAt.Load()
	return at != 0 && at == b.conn.Stats().Reconnects+1
}
