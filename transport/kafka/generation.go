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
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// ErrRevoked is the context.Cause of a handler that was still running when
// DrainTimeout had passed, after its partition was taken away or Run's context
// ended.
var ErrRevoked = errors.New("kafkatransport: the time to drain is over")

const (
	// maxGrace is how long handlers get to return once their context is cancelled.
	maxGrace = time.Second
	// commitTimeout bounds a commit: a rebalance waits for it.
	commitTimeout = 2 * time.Second
)

// generation is one assignment of partitions to this member, from the join to
// the next rebalance. serve is its one owner: nothing else commits, and nothing
// commits after serve returned.
type generation struct {
	*session
	partitions []*partition
	total      *budget
	workers    workers
	commitTo   committer

	handlers context.Context // of all handlers
	cancel   context.CancelCauseFunc
	quit     chan struct{}  // closed when the drain begins
	over     atomic.Bool    // serve has returned
	busy     sync.WaitGroup // fetchers and workers
	name     chan struct{}  // has an element when partitions wait for the commit that names their owner
	rejoin   chan struct{}  // has an element when the assignment is out of date

	haltMu   sync.Mutex
	halts    []error       // why the partitions halted
	haltedCh chan struct{} // closed when all of them have
}

// committer commits offsets to the group. It returns what the group refused, by the
// names of the partitions, or why it is not known what the group did.
type committer func(ctx context.Context, topics []offsetcommit.RequestTopic) (refused map[string]error, err error)

// outcome says why serve ended.
type outcome string

const (
	ended    outcome = "the group rebalances"
	left     outcome = "this member joins anew"
	stopping outcome = "the context ended"
	halted   outcome = "every partition halted"
)

func newGeneration(s *session, assignments map[string][]kafka.PartitionAssignment, commitTo committer) *generation {
	g := &generation{
		session:  s,
		total:    &budget{maxCount: int64(s.config.TotalInFlight), maxBytes: int64(s.config.TotalInFlightBytes)},
		commitTo: commitTo,
		quit:     make(chan struct{}),
		name:     make(chan struct{}, 1),
		rejoin:   make(chan struct{}, 1),
		haltedCh: make(chan struct{}),
	}
	g.handlers, g.cancel = context.WithCancelCause(s.base)
	for topic, assigned := range assignments {
		for _, a := range assigned {
			p := &partition{
				tracker: newTracker(a.Offset, s.config.MaxInFlight, s.config.MaxInFlightBytes, g.total),
				source:  source{topic: topic, partition: int32(a.ID), maxWait: s.config.MaxWait, patience: s.config.fetchPatience, maxBytes: s.config.FetchMaxBytes},
				name:    partitionName(topic, int32(a.ID)),
				first:   a.Offset,
				owned:   make(chan struct{}),
			}
			p.committed.Store(max(a.Offset, -1))
			p.end.Store(-1)
			g.partitions = append(g.partitions, p)
		}
	}
	g.workers = s.newWorkers(g.partitions)
	return g
}

// serve runs the generation until ended is closed, stop ends, or another outcome
// comes first. Then it drains and returns.
func (g *generation) serve(stop context.Context, ended <-chan struct{}) outcome {
	fetching, stopFetching := context.WithCancel(g.base)
	defer stopFetching()
	defer g.over.Store(true)
	g.workers.start(g)
	g.busy.Go(func() {
		g.identify(fetching, func(p *partition) {
			ctx, stop := context.WithCancel(fetching)
			p.stop = stop
			g.busy.Go(func() { g.fetchAll(ctx, p) })
		})
	})
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
			if excluded(g.commit()) {
				return left
			}
		case <-g.name:
			if excluded(g.commit()) {
				return left
			}
		case <-g.rejoin:
			return left
		case <-topics.C:
			if g.topicsChanged(stop) {
				return left
			}
		}
	}
}

// excluded says whether a commit was refused because the group has gone on without
// this member.
func excluded(err error) bool {
	return errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.IllegalGeneration)
}

// commit commits the watermarks that grew. It is called by serve alone, one call
// after the other, so that committed offsets never move back.
func (g *generation) commit() error {
	type mark struct {
		*partition
		offset int64
		resets int
	}
	var marks []mark
	byTopic := make(map[string][]offsetcommit.RequestPartition)
	for _, p := range g.partitions {
		m := mark{partition: p}
		m.offset, m.resets = p.watermark()
		grew := m.offset > p.committed.Load() || m.resets != p.resetsCommitted
		if !p.located.Load() || p.gone.Load() || p.named && !grew {
			continue
		}
		marks = append(marks, m)
		byTopic[p.source.topic] = append(byTopic[p.source.topic], offsetcommit.RequestPartition{
			PartitionIndex:       p.source.partition,
			CommittedOffset:      m.offset,
			CommittedLeaderEpoch: -1,
			CommittedMetadata:    p.owner.String(),
		})
	}
	if len(marks) == 0 {
		return nil
	}
	topics := make([]offsetcommit.RequestTopic, 0, len(byTopic))
	for topic, ps := range byTopic {
		topics = append(topics, offsetcommit.RequestTopic{Name: topic, Partitions: ps})
	}
	ctx, cancel := context.WithTimeout(g.base, commitTimeout)
	defer cancel()
	now := time.Now()
	refused, err := g.commitTo(ctx, topics)
	if err != nil {
		g.status.bad(theCommit, err)
		g.link.renew()
		return err
	}
	g.status.good(theCommit)
	if len(refused) < len(marks) {
		g.counters.commits.Add(1)
	}
	for _, m := range marks {
		switch why := refused[m.name]; {
		case why == nil:
			g.status.good(theCommit + " " + m.name)
			m.committed.Store(m.offset)
			m.resetsCommitted = m.resets
			m.own()
			g.commits.Store(m.name, now)
		case errors.Is(why, kafka.RebalanceInProgress): // the next generation commits
		default:
			g.status.bad(theCommit+" "+m.name, why)
			err = errors.Join(err, fmt.Errorf("%s: %w", m.name, why))
		}
	}
	return err
}

// drain waits for what runs, committing what it settles: a commit also tells the
// group that this member lives, when heartbeats have ended with the generation.
func (g *generation) drain() {
	g.counters.drains.Add(1)
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
// more is fetched, the watermark stays where it is, and the other partitions get its
// room in flight.
func (g *generation) halt(p *partition, offset int64, err error) {
	if p.halted.Swap(true) {
		return
	}
	p.stop()
	p.close()
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
	counters   *counters
	group      string
	topics     []string
	vouch      func() (driver.Vouch, error)
	base       context.Context // Run's, without its end: a shutdown drains
	newWorkers func([]*partition) workers

	current  atomic.Pointer[generation] // nil during a rebalance
	progress progress

	missing    sync.Map       // topic -> time.Time at which it was last said not to exist
	commits    sync.Map       // partition -> time.Time of this member's last commit
	known      map[string]int // partitions of each topic at the last look
	member     bool           // the group answered when it was last asked
	given      map[string]int // partitions that this member assigned as leader of the group; nil: another leads
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
	was := s.known
	s.known = now
	for topic, n := range now {
		if s.given != nil && n > s.given[topic] {
			return true
		}
	}
	return was != nil && !maps.Equal(was, now)
}
