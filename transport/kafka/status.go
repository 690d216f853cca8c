package kafkatransport

import (
	"slices"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/status"
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
	// Errors are the last errors of Failing, in the same order; nil for a request that is not
	// answered.
	Errors []error
	// Since is when the first of them began to fail; zero if there are none.
	Since time.Time
	// Waiting names the messages for which partitions wait. Such a message was fetched more
	// than 5s ago, and its partition is not fetched any more until messages are settled: see
	// Config.MaxInFlight and Config.MaxAhead.
	Waiting []Waiting
	// Progress is when a request was last answered or failed, or a message was last tried.
	// Zero outside Run.
	Progress time.Time
}

// Waiting is a message for which a partition waits.
type Waiting struct {
	Topic     string
	Partition int32
	Offset    int64
	Since     time.Time // when the message was fetched
}

// Status returns the current state. It does not wait.
func (c *Consumer) Status() Status {
	s := c.session.Load()
	if s == nil {
		return Status{}
	}
	st := Status{Progress: s.status.Progress()}
	failing := s.status.Failing()
	if g := s.current.Load(); g != nil {
		st.Assigned = len(g.fetchers)
		now := time.Now()
		for _, f := range g.fetchers {
			of := func(x status.Failure) bool { return x.What == f.Title }
			switch since, late := f.unanswered(now, c.config.answerWithin); {
			case f.Halted():
				st.Halted++
				failing = slices.DeleteFunc(failing, of) // nothing is asked of it any more
			case late && !slices.ContainsFunc(failing, of):
				failing = append(failing, status.Failure{What: f.Title, Since: since})
			}
			if offset, since, waits := f.Waiting(); waits {
				st.Waiting = append(st.Waiting, Waiting{f.Topic, f.Number, offset, since})
			}
		}
	}
	slices.SortFunc(failing, func(a, b status.Failure) int { return strings.Compare(a.What, b.What) })
	for _, f := range failing {
		st.Failing, st.Errors = append(st.Failing, f.What), append(st.Errors, f.Err)
		if st.Since.IsZero() || f.Since.Before(st.Since) {
			st.Since = f.Since
		}
	}
	return st
}
