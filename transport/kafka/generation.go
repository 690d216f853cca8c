package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
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
	partitions []*partition
	work       workers
	commitTo   func(offsets map[string]map[int]int64) error

	handlers context.Context // of all handlers
	cancel   context.CancelCauseFunc
	quit     chan struct{}  // closed when the drain begins
	busy     sync.WaitGroup // fetchers and workers

	haltMu   sync.Mutex
	halts    []error       // why the partitions halted
	haltedCh chan struct{} // closed when all of them have
}

// outcome says why serve ended.
type outcome string

const (
	ended    outcome = "the group rebalances"
	left     outcome = "this member joins anew"
	stopping outcome = "the context ended"
	halted   outcome = "every partition halted"
)

func newGeneration(s *session, assignments map[string][]kafka.PartitionAssignment, commitTo func(map[string]map[int]int64) error) *generation {
	g := &generation{session: s, commitTo: commitTo, quit: make(chan struct{}), haltedCh: make(chan struct{})}
	g.handlers, g.cancel = context.WithCancelCause(s.base)
	for topic, assigned := range assignments {
		for _, a := range assigned {
			g.partitions = append(g.partitions, &partition{
				tracker:   newTracker(a.Offset, s.config.MaxInFlight, s.config.MaxInFlightBytes),
				source:    source{topic: topic, partition: int32(a.ID), maxWait: s.config.MaxWait, patience: s.config.fetchPatience, maxBytes: s.config.FetchMaxBytes},
				name:      fmt.Sprintf("%s/%d", topic, a.ID),
				first:     a.Offset,
				committed: max(a.Offset, -1),
			})
		}
	}
	g.work = s.newWorkers(g.partitions)
	return g
}

// serve runs the generation until ended is closed, stop ends, or another outcome
// comes first. Then it drains and returns.
func (g *generation) serve(stop context.Context, ended <-chan struct{}) outcome {
	fetching, stopFetching := context.WithCancel(g.base)
	defer stopFetching()
	g.work.start(g)
	for _, p := range g.partitions {
		ctx, cancel := context.WithCancel(fetching)
		p.stop = cancel
		g.busy.Go(func() {
			defer cancel()
			g.fetchAll(ctx, p)
		})
	}
	why := g.watch(stop, ended)
	close(g.quit)
	g.log.Info("giving up the partitions", "why", why, "handlers", g.active.Load())
	stopFetching()
	g.drain()
	return why
}

// watch commits, and looks for new partitions, until the generation is over.
func (g *generation) watch(stop context.Context, over <-chan struct{}) outcome {
	commit := time.NewTicker(g.config.CommitInterval)
	defer commit.Stop()
	topics := time.NewTicker(g.config.watchInterval)
	defer topics.Stop()
	for {
		select {
		case <-over:
			return ended
		case <-stop.Done():
			return stopping
		case <-g.haltedCh:
			return halted
		case <-commit.C:
			if len(g.partitions) == 0 {
				g.progress.moved() // to wait is all there is to do
			}
			if err := g.commit(); errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration) {
				return left // the group has gone on without this member
			}
		case <-topics.C:
			if g.topicsChanged(stop) {
				return left
			}
		}
	}
}

// commit commits the watermarks that grew. It is called by serve alone, one call
// after the other, so that committed offsets never move back.
func (g *generation) commit() error {
	marks := make(map[*partition]int64)
	offsets := make(map[string]map[int]int64)
	for _, p := range g.partitions {
		mark := p.watermark()
		if mark <= p.committed {
			continue
		}
		marks[p] = mark
		if offsets[p.source.topic] == nil {
			offsets[p.source.topic] = make(map[int]int64)
		}
		offsets[p.source.topic][int(p.source.partition)] = mark
	}
	if len(marks) == 0 {
		return nil
	}
	err := g.commitTo(offsets)
	switch {
	case err == nil:
		g.status.good(theCommit)
		for p, mark := range marks {
			p.committed = mark
		}
	case errors.Is(err, kafka.RebalanceInProgress): // the next generation commits
	default:
		g.status.bad(theCommit, err)
	}
	return err
}

// drain waits for what runs, committing what it settles: a commit also tells the
// group that this member lives, when heartbeats have ended with the generation.
func (g *generation) drain() {
	idle := make(chan struct{})
	g.stragglers.Go(func() {
		g.busy.Wait()
		g.cancel(nil)
		close(idle)
	})
	commit := time.NewTicker(min(g.config.HeartbeatInterval, g.config.CommitInterval))
	defer commit.Stop()
	limit := time.NewTimer(g.config.DrainTimeout)
	defer limit.Stop()
	cancelled := false
	for {
		select {
		case <-idle:
			_ = g.commit() // an error is logged; the messages come again, as duplicates
			return
		case <-commit.C:
			_ = g.commit()
		case <-limit.C:
			if cancelled {
				_ = g.commit()
				return
			}
			cancelled = true
			g.cancel(ErrRevoked)
			limit.Reset(min(maxGrace, g.config.HeartbeatInterval/2))
		}
	}
}

func (g *generation) draining() bool {
	select {
	case <-g.quit:
		return true
	default:
		return false
	}
}

// haltAt halts the partition of a message that the Deduplicator stopped at.
func (g *generation) haltAt(it item, r dedup.Result) {
	err := r.Err
	if err == nil {
		err = fmt.Errorf("outcome %v", r.Outcome)
	}
	g.halt(it.partition, it.message.Position.Offset, err)
}

// halt stops p for the rest of the generation: what waits is not run, nothing
// more is fetched, and the watermark stays where it is.
func (g *generation) halt(p *partition, offset int64, err error) {
	if p.halted.Swap(true) {
		return
	}
	p.stop()
	g.log.Error("partition halted, an operator must look", "partition", p.name, "offset", offset, "err", err)
	g.haltMu.Lock()
	defer g.haltMu.Unlock()
	g.halts = append(g.halts, fmt.Errorf("%s@%d: %w", p.name, offset, err))
	if len(g.halts) == len(g.partitions) {
		close(g.haltedCh)
	}
}

// session is what the generations of one Run share.
type session struct {
	config     *Config
	log        *slog.Logger
	link       *link
	status     *status
	topics     []string
	base       context.Context // Run's, without its end: a shutdown drains
	newWorkers func([]*partition) workers

	current  atomic.Pointer[generation] // nil during a rebalance
	progress progress

	known      map[string]int // partitions of each topic when the group was joined
	calls      atomic.Int64   // of Do and DoBatch under way
	active     atomic.Int64   // handlers that run
	stragglers sync.WaitGroup // generations that still have something running
}

// running counts a handler until the returned function is called.
func (s *session) running() func() {
	s.active.Add(1)
	return func() { s.active.Add(-1) }
}

// topicsChanged says whether topics appeared, went, or got more partitions since
// the group was joined. kafka-go's own watcher rejoins in a tight loop while a
// topic is missing, and needs a connection to the coordinator for each look.
func (s *session) topicsChanged(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	now, err := s.link.partitions(ctx, s.topics...)
	if err != nil {
		return false // the fetches tell
	}
	was := s.known
	s.known = now
	return was != nil && !maps.Equal(was, now)
}
