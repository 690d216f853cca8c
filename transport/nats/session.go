package natstransport

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
)

// session is one Run: what its bindings share.
type session struct {
	consumer *Consumer
	config   *Config
	log      *slog.Logger
	conn     *nats.Conn
	status   *status
	begun    time.Time

	hand  *hand
	queue chan *delivery // received, and not yet taken by a worker
	order *order         // nil: none

	handlers context.Context // of all handlers: Run's, without its end
	cancel   context.CancelCauseFunc
	quit     chan struct{}  // closed when the drain begins
	busy     sync.WaitGroup // workers
	calls    atomic.Int64   // of Do and DoBatch under way
	active   atomic.Int64   // handlers that run

	info     atomic.Pointer[jetstream.ConsumerInfo] // as last heard of; nil: never
	bound    atomic.Bool                            // to the durable consumer
	halt     atomic.Value                           // the error that halted the session
	haltedCh chan struct{}
}

func newSession(ctx context.Context, c *Consumer, least, most int) *session {
	if c.config.Prefetch > 0 {
		least, most = c.config.Prefetch, c.config.Prefetch
	}
	log := c.config.Logger.With("stream", c.stream, "consumer", c.durable)
	s := &session{
		consumer: c,
		config:   &c.config,
		log:      log,
		conn:     c.js.Conn(),
		status:   newStatus(log),
		begun:    time.Now(),
		hand:     newHand(least, most, c.config.PrefetchBytes),
		queue:    make(chan *delivery, 2*most), // a pull that was given up may still be served
		quit:     make(chan struct{}),
		haltedCh: make(chan struct{}),
	}
	if c.config.OrderBy != nil {
		s.order = newOrder(c.config.OrderBy)
	}
	s.handlers, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	return s
}

// now is on the monotonic clock.
func (s *session) now() time.Duration { return time.Since(s.begun) }

// draining says that no handler is to be started.
func (s *session) draining() bool {
	select {
	case <-s.quit:
		return true
	case <-s.haltedCh:
		return true
	default:
		return false
	}
}

// haltAt stops the session at a message that the Deduplicator stopped at. It
// returns false if the session stops already.
func (s *session) haltAt(d *delivery, r dedup.Result) bool {
	if s.draining() {
		return false
	}
	why := r.Err
	if why == nil {
		why = fmt.Errorf("outcome %v", r.Outcome)
	}
	err := fmt.Errorf("natstransport: message %d of stream %s: %w: %w", d.message.Position.Offset, d.message.Position.Source, dedup.ErrHalted, why)
	first := s.halt.CompareAndSwap(nil, err)
	if first {
		s.log.Error("consumer halted, an operator must look", "sequence", d.message.Position.Offset, "err", why)
		close(s.haltedCh)
	}
	return first
}

// handBack returns to the server what no worker has taken. The workers take
// nothing any more.
func (s *session) handBack() {
	if s.order != nil {
		for _, d := range s.order.open() {
			s.giveBack(d)
		}
	}
	for {
		select {
		case d := <-s.queue:
			s.giveBack(d)
		default:
			return
		}
	}
}

// giveBack returns d to the server, and what waits behind it.
func (s *session) giveBack(d *delivery) {
	for d != nil {
		d.nak(0)
		s.drop(d)
		d = s.behind(d, false)
	}
}

// begin hands a delivery to the workers, whose turn it is.
func (s *session) begin(d *delivery) {
	select {
	case s.queue <- d:
	default:
		select {
		case s.queue <- d:
		case <-s.quit:
			s.giveBack(d)
		}
	}
}

// behind returns the delivery that follows d, which has ended, in its order.
func (s *session) behind(d *delivery, settled bool) *delivery {
	if s.order == nil {
		return nil
	}
	return s.order.next(d, settled, d.binding.comesAgain())
}
