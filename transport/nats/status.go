package natstransport

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Status is the state of a [Consumer], as the answers to its own requests show it. No request
// is sent for it.
type Status struct {
	Stream   string // name of the stream
	Consumer string // name of the durable consumer

	// Assigned is 1 while this member is bound to the durable consumer, else 0.
	Assigned int
	// Halted is 1 if this member has halted: an operator must look. Else it is 0.
	Halted int
	// Failing names what fails or is not answered: "connection", "bind" for finding the
	// durable consumer, "pull" for asking for messages. Empty if nothing does.
	Failing []string
	// Since is when it began to fail; zero if nothing does.
	Since time.Time
	// Progress is when a message or a heartbeat last came, or a request last failed. Zero
	// outside Run.
	Progress time.Time

	// InHand is how many messages were delivered to this member and are not answered yet.
	InHand int

	// Figures of the durable consumer, of all its members together. The server gave them at
	// most some ten seconds ago. Zero outside Run.
	Pending       uint64 // number of messages that are not delivered yet
	AckPending    int    // number of messages that are delivered and not acknowledged
	MaxAckPending int    // limit of AckPending; -1 if there is none

	// Counts of all Runs of this Consumer.
	Redelivered     int64 // deliveries of a message that was delivered before
	StaleDeliveries int64 // deliveries not run because the server may have given the message to another member
	AckFailures     int64 // answers that were not sent or not confirmed: their messages come again
	MaxDeliveries   int64 // messages that the server gave up on, whichever member had them
	Binds           int64 // times that this member was bound: more than one for each Run if the durable consumer was deleted
}

// Status returns the current state. It does not wait.
func (c *Consumer) Status() Status {
	st := Status{
		Stream: c.stream, Consumer: c.durable,
		Redelivered:     c.counts.redelivered.Load(),
		StaleDeliveries: c.counts.stale.Load(),
		AckFailures:     c.counts.ackFailures.Load(),
		MaxDeliveries:   c.counts.maxDeliveries.Load(),
		Binds:           c.counts.binds.Load(),
	}
	s := c.session.Load()
	if s == nil {
		return st
	}
	st.Failing, st.Since, st.Progress = s.status.now()
	if !s.conn.IsConnected() && len(st.Failing) == 0 {
		st.Failing, st.Since = []string{"connection"}, st.Progress
	}
	if s.bound.Load() {
		st.Assigned = 1
	}
	if s.halt.Load() != nil {
		st.Halted = 1
	}
	st.InHand = s.hand.count()
	if info := s.info.Load(); info != nil {
		st.Pending, st.AckPending, st.MaxAckPending = info.NumPending, info.NumAckPending, info.Config.MaxAckPending
	}
	return st
}

// counts are those of a Consumer, of all its Runs.
type counts struct {
	redelivered, stale, ackFailures, maxDeliveries, binds atomic.Int64
}

// status logs when the consumer cannot be reached and when it can again, once
// each: while a server is away, it is tried again and again.
type status struct {
	log     *slog.Logger
	moved   atomic.Int64 // when something last did, in nanoseconds since 1970
	failing atomic.Bool

	mu    sync.Mutex
	what  string // that fails
	since time.Time
}

func (s *status) bad(what string, err error) {
	s.progress(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.what = what
	if !s.failing.Swap(true) {
		s.since = time.Now()
		s.log.Warn("jetstream fails, trying again until it answers", "what", what, "err", err)
	}
}

func (s *status) progress(now time.Time) { s.moved.Store(now.UnixNano()) }

func (s *status) good() {
	s.progress(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.Swap(false) {
		s.log.Info("jetstream answers again", "after", time.Since(s.since).Round(time.Millisecond))
	}
}

// now returns what fails, since when, and when something last moved.
func (s *status) now() (failing []string, since, moved time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.Load() {
		failing, since = []string{s.what}, s.since
	}
	return failing, since, time.Unix(0, s.moved.Load())
}

func newStatus(log *slog.Logger) *status {
	s := &status{log: log}
	s.progress(time.Now())
	return s
}
