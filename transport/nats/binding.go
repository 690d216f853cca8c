package natstransport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// binding is the way to one incarnation of the consumer, until that is deleted.
// serve is its owner: it pulls, and finds out whether the incarnation still lives.
type binding struct {
	*session
	created time.Time // tells incarnations apart
	ackWait time.Duration
	puller  puller
	sub     *nats.Subscription
	drained chan struct{} // closed when the subscription has handed over all it received
	over    chan struct{} // closed when nothing more is to be kept alive
	beating sync.WaitGroup

	sequence uint64 // of the last delivery, as the consumer counts them; for receive alone

	mu    sync.Mutex
	state state
	late  []answer // to be sent when the binding is known to hold
}

type state uint8

const (
	holds    state = iota
	doubtful       // the connection broke, or the server said something strange
	orphan         // the consumer it belonged to is gone
)

type answer struct {
	delivery *delivery
	body     []byte
}

// ending says why serve ended.
type ending string

const (
	stopping         ending = "the context ended"
	halted           ending = "the Deduplicator halted"
	connectionClosed ending = "the connection is closed"
	consumerGone     ending = "the consumer is gone"
)

func (s *session) newBinding(info *jetstream.ConsumerInfo) (*binding, error) {
	b := &binding{
		session: s,
		created: info.Created,
		ackWait: ackWait(info.Config),
		drained: make(chan struct{}),
		over:    make(chan struct{}),
	}
	b.puller = newPuller(s, info.Config, b.well)
	sub, err := s.conn.Subscribe(b.puller.inbox+".*", b.receive)
	if err != nil {
		return nil, err
	}
	_ = sub.SetPendingLimits(-1, -1) // Prefetch is the limit; what the client dropped would come only after AckWait
	b.sub = sub
	sub.SetClosedHandler(func(string) { close(b.drained) })
	b.beating.Go(b.keepAlive)
	return b, nil
}

// errRestarted: deliveries are counted from one by each incarnation.
var errRestarted = errors.New("the consumer counts its deliveries anew")

// receive is called for each message of the subscription, one after the other.
func (b *binding) receive(m *nats.Msg) {
	if n, ok := b.puller.isStatus(m); ok {
		b.puller.heard(n, m)
		return
	}
	d := &delivery{reply: m.Reply, binding: b}
	d.alive.Store(int64(b.now()))
	sequence, err := fill(&d.message, m, time.Now())
	if err != nil {
		b.log.Warn("received something that is no delivery", "subject", m.Subject, "err", err)
		return
	}
	if sequence <= b.sequence {
		b.suspend()
		b.puller.complain(errRestarted)
	}
	b.sequence = sequence
	b.well()
	b.hand.take(d)
	select {
	case b.queue <- d:
	default:
		select {
		case b.queue <- d:
		case <-b.quit: // it comes again after AckWait
			b.hand.drop(d)
		}
	}
	b.puller.delivered()
}

// serve pulls until ctx ends, or another ending comes first.
func (b *binding) serve(ctx context.Context) ending {
	changes := b.conn.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer b.conn.RemoveStatusListener(changes)
	look := time.NewTicker(b.puller.heartbeat)
	defer look.Stop()
	again := time.NewTimer(0) // when to verify a doubtful binding
	defer again.Stop()
	<-again.C
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
		case <-b.puller.spent:
			switch faults, why := b.puller.complaint(); {
			case errors.Is(why, jetstream.ErrConsumerDeleted):
				b.status.bad("pull", why)
				return consumerGone
			case why != nil:
				doubt(why, b.backoff(faults))
			}
		case <-look.C:
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
			switch err := b.check(ctx); {
			case err == nil:
				tries = 0
				b.resume() // all is well when it brings something
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
	return b.consumer.verify(info)
}

func (b *binding) current() state {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

func (b *binding) orphaned() bool { return b.current() == orphan }

// well is called whenever the server shows that all is well. What was on its way
// when the connection broke does not count.
func (b *binding) well() {
	b.status.progress()
	if b.status.failing.Load() && b.current() == holds {
		b.status.good()
	}
}

// suspend holds answers back: where a consumer was deleted and created anew, the
// answer to a message of the old one would hit another message.
func (b *binding) suspend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == holds {
		b.state = doubtful
	}
}

// resume sends what was held back.
func (b *binding) resume() {
	b.puller.forget()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = holds
	for _, a := range b.late {
		if a.body[0] == nakBody[0] && a.delivery.overdue() {
			continue // it would hand back somebody else's delivery
		}
		b.send(a)
	}
	b.late = nil
}

// answer sends an answer to the server, or keeps it until the binding is known to
// hold.
func (b *binding) answer(d *delivery, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := answer{d, body}
	switch {
	case b.state == orphan:
	case b.state == doubtful, !b.conn.IsConnected():
		b.late = append(b.late, a)
	default:
		b.send(a)
	}
}

func (b *binding) send(a answer) {
	if err := b.conn.Publish(a.delivery.reply, a.body); err != nil {
		b.log.Debug("an answer was not sent; the message comes again", "err", err)
	}
}

// keepAlive tells the server, three times per AckWait, that the messages in hand
// are worked on: those in the queue too.
func (b *binding) keepAlive() {
	interval := max(b.ackWait/3, time.Millisecond)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var ds []*delivery
	for {
		select {
		case <-b.over:
			return
		case <-tick.C:
		}
		if b.current() != holds || !b.conn.IsConnected() {
			continue
		}
		now := b.now()
		ds = b.hand.of(b, ds[:0])
		for _, d := range ds {
			// What came just now can wait for the next tick. What has expired may be
			// with another, whose delivery this would prolong.
			age := now - time.Duration(d.alive.Load())
			if age < interval/2 || age >= b.ackWait {
				continue
			}
			if err := b.conn.Publish(d.reply, progressBody); err != nil {
				break
			}
			d.alive.Store(int64(now))
		}
		clear(ds)
	}
}

// stopPulling ends the subscription, and waits until all that was on its way has
// been received.
func (b *binding) stopPulling() {
	if err := b.sub.Drain(); err != nil {
		return // the connection is closed
	}
	pause(b.drained, flushTimeout)
}

// close ends a binding that holds.
func (b *binding) close() {
	_ = b.sub.Unsubscribe() // if stopPulling did not get that far
	close(b.over)
	b.beating.Wait()
}

// abandon ends a binding whose consumer is gone. Nothing that came by it is
// answered any more.
func (b *binding) abandon() {
	b.mu.Lock()
	b.state = orphan
	b.late = nil
	b.mu.Unlock()
	b.close()
}
