package kafkatransport

import (
	"slices"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/status"
)

// Status says how a Consumer fares, from the answers to its own requests: none is
// sent for it.
type Status struct {
	// Assigned is the number of partitions that this member holds; 0 outside Run,
	// while the group rebalances, and for a member that the group has no use for.
	Assigned int
	// Halted is how many of them have halted: an operator must look.
	Halted int
	// Failing names what fails or does not answer, sorted: partitions as
	// topic/partition, "group" for joining it, "commit", "commit topic/partition" for
	// an offset that the group refuses, "owner" for asking with which store they were
	// consumed last. Empty if all is well.
	Failing []string
	// Errors are the last errors of Failing, in its order; nil for one that does not
	// answer.
	Errors []error
	// Since is when the first of them began to; zero if all is well.
	Since time.Time
	// Waiting names the messages that partitions wait for. Such a message is in hand
	// for more than 5s, and so many behind it are settled or wait that its partition
	// is not fetched any more: see Config.MaxInFlight and MaxAhead.
	Waiting []Waiting
	// Progress is when something last moved: a request was answered or failed, a
	// message was tried. Zero outside Run.
	Progress time.Time
}

// Waiting is a message that a partition waits for.
type Waiting struct {
	Topic     string
	Partition int32
	Offset    int64
	Since     time.Time // when it was fetched
}

// Status returns how the Consumer fares now. It does not wait.
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
			if offset, since, waits := f.Waiting(); waits && !f.Halted() {
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
