package kafkatransport

import (
	"log/slog"
	"sync"
)

// status logs when the way to the brokers breaks and when it is whole again,
// once each: while a broker is away, every partition fails again and again.
type status struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[string]bool // what fails: partitions, or the group
}

// theGroup is what fails when the group cannot be joined, or a commit fails.
const (
	theGroup  = "group"
	theCommit = "commit"
)

func (s *status) bad(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing == nil {
		s.failing = make(map[string]bool)
	}
	if len(s.failing) == 0 {
		s.log.Warn("kafka fails, trying again until it answers", "what", what, "err", err)
	}
	s.failing[what] = true
}

func (s *status) good(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing[what] {
		delete(s.failing, what)
		s.recovered()
	}
}

// joined says that the group answers and assigned the partitions. If something
// failed before, all is well again only when each of them was fetched.
func (s *status) joined(partitions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failing) == 0 {
		return
	}
	clear(s.failing)
	for _, p := range partitions {
		s.failing[p] = true
	}
	s.recovered()
}

func (s *status) recovered() {
	if len(s.failing) == 0 {
		s.log.Info("kafka answers again")
	}
}
