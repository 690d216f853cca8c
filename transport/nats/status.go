package natstransport

import (
	"log/slog"
	"sync"
	"sync/atomic"
)

// status logs when the consumer cannot be reached and when it can again, once
// each: while a server is away, it is tried again and again.
type status struct {
	log *slog.Logger

	mu      sync.Mutex
	failing atomic.Bool
}

func (s *status) bad(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.failing.Swap(true) {
		s.log.Warn("jetstream fails, trying again until it answers", "what", what, "err", err)
	}
}

func (s *status) good() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.Swap(false) {
		s.log.Info("jetstream answers again")
	}
}
