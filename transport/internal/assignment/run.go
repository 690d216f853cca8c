package assignment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/transport/internal/lanes"
	"github.com/oncequeue/oncequeue/transport/internal/status"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// Where a partition without a committed offset begins, in the numbers of Kafka's
// protocol.
const (
	Latest   = int64(-1)
	Earliest = int64(-2)
)

// The names of failures besides partitions, for status.Status: joining the group; a commit; asking
// the store, or the group, who consumed the partitions last.
const (
	TheGroup  = "group"
	TheCommit = "commit"
	TheOwner  = "owner"
)

// Options are what the Assignments of a Run share. All are required.
type Options struct {
	Bounds window.Bounds // of each partition
	Total  *window.Budget
	Pool   *lanes.Pool
	Status *status.Status
	Counts *Counts
	Log    *slog.Logger
	Vouch  func() (driver.Vouch, error)

	Start        int64         // Earliest or Latest: where a topic begins that is new to the group
	DrainTimeout time.Duration // how long handlers may go on after Drain begins
	DrainCommit  time.Duration // between the commits while it drains
	Grace        time.Duration // how long handlers get to return once their context is cancelled
	Revoked      error         // the cause of that

	// PartitionCount returns how many partitions the topic has, as last heard; 0 if
	// that is not known.
	PartitionCount func(topic string) int
}

// Counts are for the life of a Consumer.
type Counts struct {
	Rebalances, Drains, Commits, Late, Skipped atomic.Int64
}

// Run is what all Assignments of one Run or RunBatch have in common.
type Run struct {
	Options
	base       context.Context // without an end: a shutdown drains
	missing    sync.Map        // topic -> time.Time at which it was last said not to exist
	commits    sync.Map        // Name -> time.Time of this member's last commit
	stragglers sync.WaitGroup  // Lines that were given up and still run something
}

// NewRun makes a Run. The handlers' contexts carry the values of ctx, not its end.
func NewRun(ctx context.Context, o Options) *Run {
	return &Run{Options: o, base: context.WithoutCancel(ctx)}
}

// Finish waits for handlers that outlasted the Drain of their partition, at most for
// limit. It returns an error that says how many still run.
func (r *Run) Finish(limit time.Duration) error {
	idle := make(chan struct{})
	go func() {
		r.stragglers.Wait()
		close(idle)
	}()
	if wait.For(idle, limit) {
		handlers, others := r.Pool.Running()
		return fmt.Errorf("%d handlers still run although their context was cancelled, %d other calls wait for the store; their claims stay held until they return or this process ends", handlers, others)
	}
	return nil
}

// Name names a partition.
type Name struct {
	Topic  string
	Number int32
}

// String returns "topic/number".
func (n Name) String() string { return fmt.Sprintf("%s/%d", n.Topic, n.Number) }

// Mark is an offset to commit, with metadata.
type Mark struct {
	Name
	Offset   int64
	Metadata string
}

// LastCommit is the group's for a partition, or why it is not known.
type LastCommit struct {
	Offset   int64 // -1: there is none
	Metadata string
	Err      error
}

// Group is the consumer group, as a client library talks to it.
type Group interface {
	// Committed returns the group's last commits. It may leave out partitions that
	// were not answered.
	Committed(ctx context.Context, ps []Name) (map[Name]LastCommit, error)
	// Commit commits as this member. It returns what the group refused, or why it
	// is not known what the group did. A partition that Commit left out of the map was
	// committed.
	Commit(ctx context.Context, marks []Mark) (refused map[Name]error, err error)
}

var (
	// ErrLater is the refusal of a commit that comes too late for this generation,
	// because the group rebalances. The next generation commits.
	ErrLater = errors.New("the group rebalances")
	// ErrNotAnswered means that the group's answer left the partition out.
	ErrNotAnswered = errors.New("the group's answer does not have the partition")
)
