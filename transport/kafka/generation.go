package kafkatransport

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/transport/internal/assignment"
)

// ErrRevoked is the context.Cause of a handler that was still running when
// DrainTimeout had passed, after its partition was taken away or Run's context
// ended.
var ErrRevoked = errors.New("kafkatransport: the time to drain is over")

// maxGrace is how long handlers get to return once their context is cancelled.
const maxGrace = time.Second

// generation is one assignment of partitions to this member, from the join to
// the next rebalance. serve is its one owner: nothing else commits, and nothing
// commits after serve returned.
type generation struct {
	*session
	assignment *assignment.Assignment
	fetchers   []*fetcher
	busy       sync.WaitGroup // of the fetchers
	rejoin     chan struct{}  // has an element when the assignment is out of date
	halts      error          // why all partitions halted
}

// outcome says why serve ended.
type outcome string

const (
	ended    outcome = "the group rebalances"
	left     outcome = "this member joins anew"
	stopping outcome = "the context ended"
	halted   outcome = "every partition halted"
)

func newGeneration(s *session, assignments map[string][]kafka.PartitionAssignment, group assignment.Group) *generation {
	g := &generation{session: s, assignment: s.run.New(group), rejoin: make(chan struct{}, 1)}
	for topic, assigned := range assignments {
		for _, a := range assigned {
			p := g.assignment.Add(assignment.Name{Topic: topic, Number: int32(a.ID)})
			g.fetchers = append(g.fetchers, newFetcher(g, p))
		}
	}
	return g
}

// serve runs the generation until over is closed, stop ends, or another outcome
// comes first. Then it drains and returns.
func (g *generation) serve(stop context.Context, over <-chan struct{}) outcome {
	asking, stopAsking := context.WithCancel(context.WithoutCancel(stop))
	defer stopAsking()
	fetchers := make(map[*assignment.Partition]*fetcher, len(g.fetchers))
	for _, f := range g.fetchers {
		fetchers[f.Partition] = f
	}
	g.busy.Go(func() {
		g.assignment.Identify(asking, g.assignment.Partitions(), func(p *assignment.Partition) {
			g.busy.Go(fetchers[p].run)
		}, g.link.renew)
	})
	why := g.watch(stop, over)
	partitions := g.assignment.Partitions()
	g.assignment.Stop(partitions) // before the line that says so
	handlers, _ := g.run.Pool.Running()
	g.log.Info("giving up the partitions", "why", why, "handlers", handlers)
	stopAsking()
	g.assignment.Drain(partitions)
	g.busy.Wait()
	return why
}

// watch commits, and looks for new partitions, until the generation is over.
func (g *generation) watch(stop context.Context, over <-chan struct{}) outcome {
	commit := time.NewTicker(g.config.CommitInterval)
	defer commit.Stop()
	topics := time.NewTicker(g.config.watchInterval)
	defer topics.Stop()
	for {
		var err error
		select {
		case <-over:
			return ended
		case <-stop.Done():
			return stopping
		case <-g.assignment.AllHalted():
			if g.halts = g.assignment.Halts(); g.halts != nil {
				return halted
			}
		case <-commit.C:
			if len(g.fetchers) == 0 {
				g.status.Moved() // to wait is all there is to do
			}
			err = g.assignment.Commit()
		case <-g.assignment.Wanted():
			err = g.assignment.Commit()
		case <-g.rejoin:
			return left
		case <-topics.C:
			if g.topicsChanged(stop) {
				return left
			}
		}
		if errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
			return left // the group has gone on without this member
		}
	}
}
