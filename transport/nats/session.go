package natstransport

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

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

	handlers context.Context // of all handlers: Run's, without its end
	cancel   context.CancelCauseFunc
	quit     chan struct{}  // closed when the drain begins
	busy     sync.WaitGroup // workers
	calls    atomic.Int64   // of Do and DoBatch under way
	active   atomic.Int64   // handlers that run

	bound    atomic.Bool  // to the durable consumer
	halt     atomic.Value // the error that halted the session
	haltedCh chan struct{}
}

func newSession(ctx context.Context, c *Consumer, prefetch int) *session {
	log := c.config.Logger.With("stream", c.stream, "consumer", c.durable)
	s := &session{
		consumer: c,
		config:   &c.config,
		log:      log,
		conn:     c.js.Conn(),
		status:   newStatus(log),
		begun:    time.Now(),
		hand:     newHand(prefetch),
		queue:    make(chan *delivery, 2*prefetch), // a pull that was given up may still be served
		quit:     make(chan struct{}),
		haltedCh: make(chan struct{}),
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

// running counts a handler until the returned function is called.
func (s *session) running() func() {
	s.active.Add(1)
	return func() { s.active.Add(-1) }
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
	for {
		select {
		case d := <-s.queue:
			d.nak(0)
			s.hand.drop(d)
		default:
			return
		}
	}
}

// hand holds what was delivered and is not yet answered.
type hand struct {
	limit int
	room  chan struct{} // has an element after half of it became free

	mu   sync.Mutex
	held map[*delivery]struct{}
}

func newHand(limit int) *hand {
	return &hand{limit: limit, room: make(chan struct{}, 1), held: make(map[*delivery]struct{}, limit)}
}

func (h *hand) take(d *delivery) {
	h.mu.Lock()
	h.held[d] = struct{}{}
	h.mu.Unlock()
}

func (h *hand) drop(d *delivery) {
	h.mu.Lock()
	delete(h.held, d)
	half := h.free() >= h.threshold()
	h.mu.Unlock()
	if half {
		h.wake()
	}
}

func (h *hand) wake() {
	select {
	case h.room <- struct{}{}:
	default:
	}
}

// threshold is how much must be free to pull more: requests for a message each
// would cost more than the messages.
func (h *hand) threshold() int { return max(h.limit/2, 1) }

func (h *hand) free() int { return h.limit - len(h.held) }

// wanted returns how many messages to pull.
func (h *hand) wanted() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.free(); n >= h.threshold() {
		return n
	}
	return 0
}

// of returns what is held of the binding, in to.
func (h *hand) of(b *binding, to []*delivery) []*delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d := range h.held {
		if d.binding == b {
			to = append(to, d)
		}
	}
	return to
}
