package natstransport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// deduplicator is the part of *dedup.Deduplicator that a Consumer uses.
type deduplicator interface {
	Do(ctx context.Context, m *dedup.Message, h dedup.Handler) dedup.Result
	DoBatch(ctx context.Context, ms []*dedup.Message, h dedup.BatchHandler) []dedup.Result
}

// workers run the messages of a session.
type workers interface {
	// start starts the goroutines; they end after the session's quit is closed, as
	// soon as what they run returns.
	start(s *session)
}

// errDraining is the answer for a message whose handler was about to start when
// the drain began: its claim is given back and the attempt does not count.
var errDraining = dedup.Transient(errors.New("the consumer is shutting down"))

// earlyDelay is for how long a message that came before its turn is handed back.
const earlyDelay = time.Second

// batchesAtOnce: while two batches are recorded and claimed, by one write to the disk of
// a store that has one, two others gather.
const batchesAtOnce = 4

// next waits for a delivery whose time has not run out. It returns nil once the
// session drains.
func (s *session) next() *delivery {
	for !s.draining() { // first, because the queue may be full as well
		select {
		case <-s.quit:
			return nil
		case <-s.haltedCh:
			return nil
		case d := <-s.queue:
			if s.order != nil || s.fresh(d) { // follow looks itself
				return d
			}
		}
	}
	return nil
}

// more adds to ds what else is in the queue, up to limit.
func (s *session) more(ds []*delivery, limit int) []*delivery {
	for len(ds) < limit {
		select {
		case d := <-s.queue:
			if s.fresh(d) {
				ds = append(ds, d)
			}
		default:
			return ds
		}
	}
	return ds
}

// fresh drops a delivery whose time has run out: the server has the message
// delivered again, and an answer to this delivery would be taken for that one.
func (s *session) fresh(d *delivery) bool {
	if !d.expired() {
		return true
	}
	s.drop(d)
	s.consumer.counts.stale.Add(1)
	s.log.Debug("a delivery waited here for longer than AckWait, and is dropped", "position", d.message.Position.String())
	return false
}

// worker is a goroutine that runs handlers, one after the other.
type worker struct {
	*session

	mu      sync.Mutex
	handler context.Context // of the handler that runs; nil: none does
}

// begin notes that a handler runs under ctx, until end.
func (w *worker) begin(ctx context.Context) {
	w.active.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = ctx
}

func (w *worker) end() {
	w.active.Add(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = nil
}

// lost says that the handler that runs has lost its claim, or the right to go on.
func (w *worker) lost() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.handler != nil && w.handler.Err() != nil
}

// singly runs each message on its own.
type singly struct {
	n int
	d deduplicator
	h dedup.Handler
}

func (w singly) start(s *session) {
	for range w.n {
		s.busy.Go(func() {
			me := &worker{session: s}
			handler := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
				if s.draining() {
					return nil, errDraining
				}
				me.begin(ctx)
				defer me.end()
				return w.h(ctx, m)
			}
			for d := s.next(); d != nil; d = s.next() {
				if s.order == nil {
					s.settle(d, me.do(w.d, d, handler))
				} else {
					me.follow(w.d, d, handler)
				}
			}
		})
	}
}

func (w *worker) do(dd deduplicator, d *delivery, h dedup.Handler) dedup.Result {
	d.worker.Store(w)
	w.calls.Add(1)
	defer w.calls.Add(-1)
	return dd.Do(w.handlers, &d.message, h)
}

// follow runs d, and what is behind it in its order, each until it is settled.
func (w *worker) follow(dd deduplicator, d *delivery, h dedup.Handler) {
	for d != nil {
		settled := false
		switch {
		case w.draining():
			d.nak(0)
			w.drop(d)
		case !w.fresh(d):
		case w.order.early(d):
			d.nak(min(earlyDelay, d.binding.ackWait/4))
			w.drop(d)
		default:
			r := w.do(dd, d, h)
			for !r.Settled() && !r.Halt && !w.draining() && !d.expired() {
				pause(w.quit, retryDelay(r.RetryAfter))
				r = w.do(dd, d, h)
			}
			w.settle(d, r)
			settled = r.Settled()
		}
		d = w.behind(d, settled)
	}
}

// batches run what is at hand together.
type batches struct {
	size int
	d    deduplicator
	h    dedup.BatchHandler
}

func (w batches) start(s *session) {
	for range batchesAtOnce {
		s.busy.Go(func() {
			me := &worker{session: s}
			handler := func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
				if s.draining() {
					answers := make([]dedup.Answer, len(ms))
					for i := range answers {
						answers[i].Err = errDraining
					}
					return answers
				}
				me.begin(ctx)
				defer me.end()
				return w.h(ctx, ms)
			}
			ds := make([]*delivery, 0, w.size)
			ms := make([]*dedup.Message, 0, w.size)
			for d := s.next(); d != nil; d = s.next() {
				ds = s.more(append(ds[:0], d), w.size)
				ms = ms[:0]
				for _, d := range ds {
					d.worker.Store(me)
					ms = append(ms, &d.message)
				}
				s.calls.Add(1)
				results := w.d.DoBatch(s.handlers, ms, handler)
				s.calls.Add(-1)
				for i, d := range ds {
					s.settle(d, results[i])
				}
				clear(ds[:cap(ds)]) // an idle worker must not keep messages in memory
				clear(ms[:cap(ms)])
			}
		})
	}
}
