// Package status keeps what fails in a Run, since when, and with which last error.
package status

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Status knows what fails. While a broker is away, everything fails again and again:
// so it logs when the first thing breaks, each further cause of a failure that lasts
// once, and when all is whole again.
type Status struct {
	log    *slog.Logger
	system string // "kafka", for the log lines
	moved  atomic.Int64

	mu      sync.Mutex
	failing map[string]*Failure
	causes  map[string]bool // that were logged since all was well
}

// Failure is one thing that fails.
type Failure struct {
	What  string    // a partition, or another part of the work
	Since time.Time // when it began to
	Err   error     // the last error; nil: there is no answer
}

const (
	// maxCauses bounds how many causes are logged until all is well again.
	maxCauses = 20
	// lasting is how long something must fail until its further causes are logged. One
	// loss of a broker shows as several errors at first.
	lasting = 5 * time.Second
)

// epoch makes Moved a number on the monotonic clock.
var epoch = time.Now()

// New makes a Status. system names the broker's kind in log lines.
func New(log *slog.Logger, system string) *Status {
	s := &Status{log: log, system: system}
	s.Moved()
	return s
}

// Moved says that something moved: a request was answered or failed, a message was
// tried. It allocates nothing.
func (s *Status) Moved() { s.moved.Store(int64(time.Since(epoch))) }

// Progress returns when something last moved.
func (s *Status) Progress() time.Time { return epoch.Add(time.Duration(s.moved.Load())) }

// Bad says that what failed with err, and will be tried again.
func (s *Status) Bad(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cause := err.Error()
	if len(s.failing) == 0 {
		s.log.Warn(s.system+" fails, trying again until it answers", "what", what, "err", err)
		s.failing, s.causes = make(map[string]*Failure), map[string]bool{cause: true}
	}
	f := s.failing[what]
	if f == nil {
		f = &Failure{What: what, Since: time.Now()}
		s.failing[what] = f
	}
	f.Err = err
	if !s.causes[cause] && len(s.causes) < maxCauses && time.Since(f.Since) >= lasting {
		s.log.Warn(s.system+" fails for another cause, trying again until it answers", "what", what, "err", err, "since", f.Since)
		s.causes[cause] = true
	}
}

// Good says that what works.
func (s *Status) Good(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, failed := s.failing[what]; failed {
		delete(s.failing, what)
		s.recovered()
	}
}

// Assigned says that the group answers and assigned the partitions. If something
// failed before, all is well again only when Good was called for each of them.
func (s *Status) Assigned(partitions []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.failing) == 0 {
		return
	}
	first := Failure{Since: time.Now()}
	for _, f := range s.failing {
		if f.Since.Before(first.Since) {
			first = *f
		}
	}
	clear(s.failing)
	for _, p := range partitions {
		s.failing[p] = &Failure{What: p, Since: first.Since, Err: first.Err}
	}
	s.recovered()
}

// Forget drops a part of the work that this member has no more, such as a partition
// that was taken away.
func (s *Status) Forget(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.failing, what)
}

func (s *Status) recovered() {
	if len(s.failing) == 0 {
		s.log.Info(s.system + " answers again")
	}
}

// Failing returns what fails, sorted by name.
func (s *Status) Failing() []Failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	failing := make([]Failure, 0, len(s.failing))
	for _, f := range s.failing {
		failing = append(failing, *f)
	}
	slices.SortFunc(failing, func(a, b Failure) int { return strings.Compare(a.What, b.What) })
	return failing
}
