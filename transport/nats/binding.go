package natstransport

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// binding is the way to one incarnation of the consumer, until that is deleted.
// serve is its owner: it pulls, and finds out whether the incarnation still lives.
type binding struct {
	*session
	created     time.Time // tells incarnations apart
	ackWait     time.Duration
	longestWait time.Duration // the longest that ackWait may become
	puller      *puller
	flow        *flow         // what the puller asked for
	hold        *hold         // nil: none
	sharedAt    atomic.Uint64 // one more than the number of reconnects when another member was last seen; 0: never
	over        chan struct{} // closed when nothing more is to be kept alive
	beating     sync.WaitGroup

	confirms   *confirms // nil without ConfirmAcks
	advisories []*nats.Subscription
	watching   context.Context // ends with the binding
	unwatch    context.CancelFunc

	mu     sync.Mutex
	state  state
	doubts int      // how often it was suspended
	late   []answer // to be sent when the binding is known to hold
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

func (s *session) newBinding(info *jetstream.ConsumerInfo) (*binding, error) {
	b := &binding{
		session:     s,
		created:     info.Created,
		ackWait:     ackWait(info.Config),
		longestWait: longestWait(info.Config),
		over:        make(chan struct{}),
	}
	if s.order != nil {
		s.order.giveUp(math.MaxInt64) // what was not settled comes first
	}
	b.puller = newPuller(s, info.Config, b.well)
	b.watching, b.unwatch = context.WithCancel(context.Background())
	if err := b.open(info); err != nil {
		b.unsubscribe()
		return nil, err
	}
	s.seen(info)
	b.beating.Go(b.keepAlive)
	b.beating.Go(b.watch)
	return b, nil
}

func (b *binding) open(info *jetstream.ConsumerInfo) (err error) {
	if b.config.ConfirmAcks {
		if b.confirms, err = newConfirms(b); err != nil {
			return err
		}
	}
	if err = b.listen(); err != nil {
		return err
	}
	return b.subscribe(info.Delivered.Consumer, info.NumAckPending > 0)
}

func (b *binding) unsubscribe() {
	b.unwatch()
	if b.flow != nil {
		_ = b.flow.sub.Unsubscribe() // stopPulling may have done it
	}
	for _, sub := range b.advisories {
		_ = sub.Unsubscribe()
	}
	if b.confirms != nil {
		b.confirms.close()
	}
}

// receive is called for each message of the flow, one after the other.
func (b *binding) receive(f *flow, m *nats.Msg) {
	if n, ok := f.isStatus(m); ok {
		if why := b.puller.heard(n, m); why != nil {
			b.complain(why)
		}
		return
	}
	received := time.Now()
	now := received.Sub(b.begun)
	d := &delivery{reply: m.Reply, binding: b, size: m.Size()}
	d.alive.Store(int64(now))
	sequence, err := fill(&d.message, m)
	if err != nil {
		b.log.Warn("received something that is no delivery", "subject", m.Subject, "err", err)
		return
	}
	if d.message.Position.Source == b.consumer.stream {
		d.message.Position.Source = b.consumer.stream // one string for all, which keeps no other in memory
	}
	first, err := b.enter(f, d, sequence)
	if err != nil {
		b.complain(err)
		if errors.Is(err, errLost) {
			return // this one is left to expire after them
		}
	}
	if d.message.Delivery > 1 {
		b.consumer.counts.redelivered.Add(1)
	}
	b.well(received)
	b.puller.delivered(now)
	if first {
		b.begin(d)
	}
	if b.order != nil && b.order.isShut() {
		b.puller.wake()
	}
}

// enter takes d, delivery n of the flow, in hand, and says whether it may go on. Nothing
// of a later flow enters before it.
func (b *binding) enter(f *flow, d *delivery, n uint64) (first bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err = f.take(n, b.order != nil && !b.shared()); errors.Is(err, errLost) {
		return false, err
	}
	b.hand.take(d)
	return b.order == nil || b.order.first(d), err
}

func (b *binding) current() state {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state
}

// comesAgain returns until when a message that is not answered any more should have come
// again.
func (b *binding) comesAgain() time.Duration { return b.now() + 2*b.longestWait + b.config.slack }

func (b *binding) orphaned() bool { return b.current() == orphan }

// well is called whenever the server shows that all is well. What was on its way
// when the connection broke does not count.
func (b *binding) well(now time.Time) {
	b.status.progress(now)
	if b.status.failing.Load() && b.current() == holds {
		b.status.good()
	}
}

// suspend holds answers back: where a consumer was deleted and created anew, the
// answer to a message of the old one would hit another message.
func (b *binding) suspend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.doubts++
	if b.state == holds {
		b.state = doubtful
	}
}

// complain puts the binding in doubt, and has serve find out. In that order: else serve
// could have resumed it before it is suspended, and not look at it again.
func (b *binding) complain(why error) {
	b.suspend()
	b.puller.complain(why)
}

// suspensions returns how often the binding was suspended, for resume.
func (b *binding) suspensions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.doubts
}

// resume sends what was held back, unless the binding was suspended again since it was
// checked: doubts is what suspensions returned before. It returns whether the binding
// holds.
func (b *binding) resume(doubts int) bool {
	b.puller.forget()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.doubts != doubts {
		return false
	}
	b.state = holds
	for _, a := range b.late {
		if a.body[0] == nakBody[0] && a.delivery.overdue() {
			continue // it would hand back somebody else's delivery
		}
		b.send(a)
	}
	b.late = nil
	return true
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
		b.consumer.counts.ackFailures.Add(1)
		b.log.Debug("an answer was not sent; the message comes again", "err", err)
	}
}

// confirm sends an acknowledgement that is to be confirmed, and returns whether it
// did: else the answer has to go without.
func (b *binding) confirm(d *delivery) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.confirms != nil && b.state == holds && b.conn.IsConnected() && b.confirms.ack(d) == nil
}

// keepAlive tells the server, three times per AckWait, that the messages in hand
// are worked on: those in the queue too. It says no word for a handler whose context
// has ended: its lease is not renewed any more, so the message is to go to another.
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
		if b.order != nil {
			if gone := b.order.giveUp(now); gone > 0 {
				b.log.Warn("messages that could not be settled did not come again; what follows them goes on", "messages", gone)
			}
		}
		ds = b.hand.of(b, ds[:0])
		for _, d := range ds {
			// What came just now can wait for the next tick, unless there is an order:
			// then messages are to expire in theirs. What has expired may be with
			// another, whose delivery this would prolong.
			alive := d.alive.Load()
			age := now - time.Duration(alive)
			if age < interval/2 && b.order == nil || age >= b.ackWait || d.answered.Load() || d.given() {
				continue
			}
			if err := b.conn.Publish(d.reply, progressBody); err != nil {
				break
			}
			d.alive.CompareAndSwap(alive, int64(now)) // what has expired meanwhile stays so
		}
		clear(ds)
	}
}

// stopPulling ends the subscription, and waits until all that was on its way has
// been received.
func (b *binding) stopPulling() {
	if err := b.flow.sub.Drain(); err != nil {
		return // the connection is closed
	}
	pause(b.flow.drained, flushTimeout)
}

// close ends a binding that holds.
func (b *binding) close() {
	b.unsubscribe()
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
