package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/assignment"
	"github.com/oncequeue/oncequeue/transport/internal/status"
)

// session is what the generations of one Run share.
type session struct {
	config   *Config
	log      *slog.Logger
	link     *link
	status   *status.Status
	throttle throttle
	run      *assignment.Run
	group    string
	topics   []string

	current atomic.Pointer[generation] // nil during a rebalance

	mu     sync.Mutex
	known  map[string]int // partitions of each topic at the last look
	member bool           // the group answered when it was last asked
	given  map[string]int // partitions that this member assigned as leader of the group; nil: another leads
}

// follow serves one generation of the group after the other. It returns nil when
// ctx ends, or why this member can do nothing more.
func (s *session) follow(ctx context.Context, group *kafka.ConsumerGroup) error {
	for {
		gen, err := group.Next(ctx)
		s.status.Moved()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.RebalanceInProgress):
			continue // normal: the join is tried again
		case errors.Is(err, kafka.InvalidSessionTimeout):
			return fmt.Errorf("kafkatransport: the brokers refuse a SessionTimeout of %v: choose one between their group.min.session.timeout.ms (6s unless changed) and group.max.session.timeout.ms", s.config.SessionTimeout)
		default:
			s.member = false
			s.status.Bad(assignment.TheGroup, denied(s.link.explained(err), read, "", s.group))
			continue // kafka-go waits before it tries again
		}
		g := newGeneration(s, gen.Assignments, &membership{s.link, gen.GroupID, gen.ID, gen.MemberID})
		s.assigned(g)
		why := make(chan outcome, 1)
		gen.Start(func(over context.Context) {
			if over.Err() != nil { // ended before it began: nobody waits for this function
				why <- ended
				return
			}
			o := g.serve(ctx, over.Done())
			why <- o
			if o == stopping || o == halted {
				<-over.Done() // to return now would make kafka-go join again
			}
		})
		over := <-why
		s.current.Store(nil)
		switch over {
		case stopping:
			return nil
		case halted:
			return fmt.Errorf("kafkatransport: every partition of this member has %w: %w", dedup.ErrHalted, g.halts)
		}
	}
}

// assigned notes that the group answered, with the partitions of g.
func (s *session) assigned(g *generation) {
	names := make([]string, len(g.fetchers))
	for i, p := range g.fetchers {
		names[i] = p.Title
	}
	slices.Sort(names)
	s.member = true
	s.run.Counts.Rebalances.Add(1)
	s.log.Info("partitions assigned", "partitions", names)
	s.status.Assigned(names)
	s.current.Store(g)
}

// leave ends the membership. What does not end in time, such as a join that
// waits for others, loses its connections.
func (s *session) leave(group *kafka.ConsumerGroup) {
	limit := silentTimeout
	if s.member {
		limit = s.config.leaveTimeout
	}
	cut := time.AfterFunc(limit, s.link.close)
	defer cut.Stop()
	_ = group.Close() // never fails
}

// topicsChanged says whether topics appeared, went, or got more partitions since
// the last look, or have partitions that this member did not assign: the broker that
// it had asked may have been behind. kafka-go's own watcher rejoins in a tight loop
// while a topic is missing, and needs a connection to the coordinator for each look.
func (s *session) topicsChanged(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	now, err := s.link.partitions(ctx, s.topics...)
	if err != nil {
		return false // the fetches tell
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.known
	s.known = now
	for topic, n := range now {
		if s.given != nil && n > s.given[topic] {
			return true
		}
	}
	return was != nil && !maps.Equal(was, now)
}

// partitionCount returns how many partitions the topic had at the last look.
func (s *session) partitionCount(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[topic]
}
