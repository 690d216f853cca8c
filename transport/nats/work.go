package natstransport

import (
	"context"
	"errors"
	"sync"

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

const (
	// batchesAtOnce: while one batch is recorded, the next is claimed.
	batchesAtOnce = 2
	// confirmsAtOnce bounds the acknowledgements of one batch that wait for the
	// server.
	confirmsAtOnce = 64
)

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
			if s.fresh(d) {
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
	s.hand.drop(d)
	s.log.Debug("a delivery waited here for longer than AckWait, and is dropped", "position", d.message.Position.String())
	return false
}

// singly runs each message on its own.
type singly struct {
	n int
	d deduplicator
	h dedup.Handler
}

func (w singly) start(s *session) {
	handler := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if s.draining() {
			return nil, errDraining
		}
		defer s.running()()
		return w.h(ctx, m)
	}
	for range w.n {
		s.busy.Go(func() {
			for d := s.next(); d != nil; d = s.next() {
				s.calls.Add(1)
				r := w.d.Do(s.handlers, &d.message, handler)
				s.calls.Add(-1)
				s.settle(d, r)
			}
		})
	}
}

// batches run what is at hand together.
type batches struct {
	size int
	d    deduplicator
	h    dedup.BatchHandler
}

func (w batches) start(s *session) {
	handler := func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		if s.draining() {
			answers := make([]dedup.Answer, len(ms))
			for i := range answers {
				answers[i].Err = errDraining
			}
			return answers
		}
		defer s.running()()
		return w.h(ctx, ms)
	}
	for range batchesAtOnce {
		s.busy.Go(func() {
			ds := make([]*delivery, 0, w.size)
			ms := make([]*dedup.Message, 0, w.size)
			for d := s.next(); d != nil; d = s.next() {
				ds = s.more(append(ds[:0], d), w.size)
				ms = ms[:0]
				for _, d := range ds {
					ms = append(ms, &d.message)
				}
				s.calls.Add(1)
				results := w.d.DoBatch(s.handlers, ms, handler)
				s.calls.Add(-1)
				s.settleAll(ds, results)
				clear(ds[:cap(ds)]) // an idle worker must not keep messages in memory
				clear(ms[:cap(ms)])
			}
		})
	}
}

func (s *session) settleAll(ds []*delivery, results []dedup.Result) {
	if !s.config.ConfirmAcks {
		for i, d := range ds {
			s.settle(d, results[i])
		}
		return
	}
	var settling sync.WaitGroup
	for k := range min(confirmsAtOnce, len(ds)) {
		settling.Go(func() {
			for i := k; i < len(ds); i += confirmsAtOnce {
				s.settle(ds[i], results[i])
			}
		})
	}
	settling.Wait()
}
