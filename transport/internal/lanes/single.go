package lanes

import (
	"context"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// single calls a handler for one message after the other.
//
// DoEach returns when all handlers of its call have returned. If one of them takes
// long, the Deduplicator gives back the messages behind it and records those before
// it, but the call cannot tell yet. So single takes them out of the call and has them
// tried again: a recorded one is a duplicate then.
type single struct {
	pool    *Pool
	d       Deduplicator
	h       dedup.Handler
	ms      []*dedup.Message
	results []dedup.Result

	mu      sync.Mutex
	timer   *time.Timer
	line    *Line
	items   []*window.Flight // of the call under way; nil: none is
	current *dedup.Message   // whose handler runs; nil: none does
	apart   bool             // only current is the call's still
}

func newSingle(p *Pool, d Deduplicator, h dedup.Handler) *single {
	return &single{pool: p, d: d, h: h, ms: make([]*dedup.Message, 0, most)}
}

// run tries the items, as many as DoEach takes. The others go back to the Line.
func (s *single) run(l *Line, items []*window.Flight) {
	s.begin(l, items)
	s.results = s.d.DoEach(l.ctx, s.ms, s.handle)
	skip := s.end()
	s.pool.conclude(l, items, s.results, skip, due)
	s.pool.pace(len(items), len(s.results))
	clear(s.ms[:cap(s.ms)])
	s.results = nil
}

// pace has the next calls take as many messages as the Deduplicator does.
func (p *Pool) pace(given, taken int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case taken < given:
		p.limit = max(1, taken)
	case given == p.limit:
		p.limit = min(2*p.limit, p.kind.limit)
	}
}

func (s *single) begin(l *Line, items []*window.Flight) {
	s.ms = s.ms[:0]
	for _, f := range items {
		s.ms = append(s.ms, f.Message)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line, s.items, s.apart = l, items, false
	if len(items) < 2 {
		return // there is nothing to take out of the call
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(stuckAfter, s.stuck)
	} else {
		s.timer.Reset(stuckAfter)
	}
}

// end returns which items are not the call's any more.
func (s *single) end() (skip func(i int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	apart, items := s.apart, s.items
	s.items = nil
	if !apart {
		return nil
	}
	return func(i int) bool { return items[i] == nil }
}

// stuck takes the messages out of the call whose handlers do not run.
func (s *single) stuck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.items == nil || s.apart:
		return
	case s.current == nil: // the store is slow, or no slot is free: nobody else would go on
		s.timer.Reset(stuckAfter)
		return
	}
	s.apart = true
	outcomes := make([]outcome, 0, most)
	for i, f := range s.items {
		if s.ms[i] == s.current {
			continue
		}
		f.Message = again(f.Message)
		outcomes = append(outcomes, outcome{flight: f, fate: untold})
		s.items[i] = nil
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.line.finish(outcomes)
	s.pool.offer(s.line)
}

// handle is what the Deduplicator calls.
func (s *single) handle(ctx context.Context, m *dedup.Message) ([]byte, error) {
	s.mu.Lock()
	if s.line.stopped.Load() {
		s.mu.Unlock()
		return nil, errStopped
	}
	s.current = m
	s.mu.Unlock()
	s.pool.active.Add(1)
	defer func() {
		s.pool.active.Add(-1)
		s.mu.Lock()
		s.current = nil
		s.mu.Unlock()
	}()
	return s.h(ctx, m)
}
