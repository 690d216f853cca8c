package kafkatransport

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Status is the state of a [Consumer], as the answers to its own requests show it. No request
// is sent for it.
type Status struct {
	// Assigned is the number of partitions that this member holds. It is 0 outside Run,
	// while the group rebalances, and if the group has no partition for this member.
	Assigned int
	// Halted is the number of those partitions that have halted: an operator must look.
	Halted int
	// Failing names the requests that fail or are not answered, sorted: "topic/partition"
	// for fetching, "group" for joining the group, "commit", "commit topic/partition" for an
	// offset that the group refuses, "owner" for asking with which store the partitions were
	// consumed last. Empty if there are none.
	Failing []string
	// Since is when the first of them began to fail; zero if there are none.
	Since time.Time
	// Progress is when a request was last answered or failed, or a message was last tried.
	// Zero outside Run.
	Progress time.Time
}

// Status returns the current state. It does not wait.
func (c *Consumer) Status() Status {
	s := c.session.Load()
	if s == nil {
		return Status{}
	}
	st := Status{Progress: s.progress.last()}
	failing := s.status.snapshot()
	if g := s.current.Load(); g != nil {
		st.Assigned = len(g.partitions)
		for _, p := range g.partitions {
			if p.halted.Load() {
				st.Halted++
				delete(failing, p.name) // nothing is asked of it any more
			} else if since, late := p.unanswered(time.Now(), c.config.answerWithin); late && failing[p.name].IsZero() {
				failing[p.name] = since
			}
		}
	}
	for what, since := range failing {
		st.Failing = append(st.Failing, what)
		if st.Since.IsZero() || since.Before(st.Since) {
			st.Since = since
		}
	}
	slices.Sort(st.Failing)
	return st
}

// progress is when something last moved, in nanoseconds since epoch: so it is by the
// monotonic clock, and noting it allocates nothing.
type progress struct{ at atomic.Int64 }

var epoch = time.Now()

func (p *progress) moved() { p.at.Store(int64(time.Since(epoch))) }

func (p *progress) last() time.Time { return epoch.Add(time.Duration(p.at.Load())) }

// status knows what fails. It logs when the way to the brokers breaks and when it
// is whole again, once each: while a broker is away, every partition fails again
// and again.
type status struct {
	log *slog.Logger

	mu      sync.Mutex
	failing map[string]time.Time // since when: partitions, or the group
}

// What fails besides partitions: joining the group; a commit; asking the store, or
// the group, who consumed the partitions last.
const (
	theGroup  = "group"
	theCommit = "commit"
	theOwner  = "owner"
)

func (s *status) bad(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failing) == 0 {
		s.log.Warn("kafka fails, trying again until it answers", "what", what, "err", err)
	}
	if s.failing == nil {
		s.failing = make(map[string]time.Time)
	}
	if s.failing[what].IsZero() {
		s.failing[what] = time.Now()
	}
}

func (s *status) good(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, failed := s.failing[what]; failed {
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
	since := time.Now()
	for _, t := range s.failing {
		if t.Before(since) {
			since = t
		}
	}
	clear(s.failing)
	for _, p := range partitions {
		s.failing[p] = since
	}
	s.recovered()
}

func (s *status) recovered() {
	if len(s.failing) == 0 {
		s.log.Info("kafka answers again")
	}
}

// snapshot returns what fails, and since when.
func (s *status) snapshot() map[string]time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	failing := make(map[string]time.Time, len(s.failing))
	maps.Copy(failing, s.failing)
	return failing
}
