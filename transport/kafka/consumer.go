package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/transport/internal/assignment"
	"github.com/oncequeue/oncequeue/transport/internal/lanes"
	"github.com/oncequeue/oncequeue/transport/internal/status"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

const (
	// silentTimeout is Config.leaveTimeout for a member that the group does not
	// answer: with nothing to commit, Run returns within a second then.
	silentTimeout = 800 * time.Millisecond
	// stragglerTimeout is how long Run waits at its end for handlers that ignore
	// their cancelled context; DrainTimeout if that is shorter.
	stragglerTimeout = 5 * time.Second
	// joinBackoff is the pause after a failed try to join the group.
	joinBackoff = 500 * time.Millisecond
)

// Consumer is a member of a consumer group. [NewConsumer] makes one. Its methods may be
// called by several goroutines at once, but only one Run or RunBatch at a time: a second one
// returns an error.
type Consumer struct {
	brokers []string
	group   string
	topics  []string
	config  Config
	running atomic.Bool
	session atomic.Pointer[session] // of the Run that goes on
	counts  assignment.Counts
}

// NewConsumer makes a Consumer that reads the topics as a member of the consumer group.
// Brokers are given as host:port. c may be nil. NewConsumer does not connect:
// [Consumer.Check] does.
//
// All members of a group should read the same topics and share one store. If each member has
// a store of its own, a key that moves to another member with its partition is new there. The
// messages that were published before the move are then flagged Stale, and later copies of
// them are not.
//
// A commit by another kind of consumer, or by an operator who sets the offset, does not name
// a store. If the store is not shared (see [driver.Vouch]), messages that are in the partition
// at that moment and have no record in the store are flagged Stale, because another store may
// have processed them. If the offsets of the group were deleted, the group looks like a new
// one, and no message is flagged for this reason.
func NewConsumer(brokers []string, group string, topics []string, c *Config) (*Consumer, error) {
	config, err := c.filled()
	if err != nil {
		return nil, err
	}
	if err := checkBrokers(brokers); err != nil {
		return nil, err
	}
	if group == "" {
		return nil, errors.New("kafkatransport: the consumer group has no name")
	}
	if len(topics) == 0 {
		return nil, errors.New("kafkatransport: no topic to consume")
	}
	topics = slices.Compact(slices.Sorted(slices.Values(topics)))
	for _, topic := range topics {
		if err := checkTopic(topic); err != nil {
			return nil, err
		}
	}
	return &Consumer{brokers: slices.Clone(brokers), group: group, topics: topics, config: config}, nil
}

// Check returns an error if no broker answers, a topic does not exist, or the right to read a
// topic or to join the group is missing. [Consumer.Run] would wait instead.
func (c *Consumer) Check(ctx context.Context) error {
	l := newLink(c.brokers, c.config.ClientID, c.config.Security, c.topics, c.config.metadataTTL)
	defer l.close()
	if err := l.check(ctx, c.topics...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := errors.Join(l.checkTopics(ctx, read, c.topics...), l.checkGroup(ctx, c.group))
	if err != nil {
		err = fmt.Errorf("kafkatransport: %w", err)
	}
	return err
}

// Run consumes until ctx ends. It processes each message with the handler h, through
// [dedup.Transport.DoEach].
//
// When ctx ends, Run drains: no handler is started any more, and running handlers may finish
// within DrainTimeout. Until then their contexts do not end. Run returns nil if all of them
// finished.
//
// Run waits while no broker answers or a topic does not exist. It returns before ctx ends in
// two cases. If every partition that the group gave to this member has halted, the error
// matches [dedup.ErrHalted]. If the brokers refuse the SessionTimeout, the error says so.
//
// The messages have no Raw and a Delivery of 0, because Kafka does not count deliveries.
func (c *Consumer) Run(ctx context.Context, d *dedup.Deduplicator, h dedup.Handler) error {
	return c.runLanes(ctx, lanes.CoreOf(d), h)
}

func (c *Consumer) runLanes(ctx context.Context, d deduplicator, h dedup.Handler) error {
	return c.run(ctx, d, func(moved func()) *lanes.Pool { return lanes.NewSingle(c.config.Lanes, d, h, moved) })
}

// RunBatch is [Consumer.Run] with a batch handler, through [dedup.Deduplicator.DoBatch]. A
// batch has at most BatchSize messages of one partition.
//
// A message that is not settled is tried again in a later batch, before other messages of its
// key. Within one batch, the handler must keep the order of messages with the same Message.Key.
func (c *Consumer) RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error {
	return c.runBatches(ctx, lanes.CoreOf(d), h)
}

func (c *Consumer) runBatches(ctx context.Context, d deduplicator, h dedup.BatchHandler) error {
	return c.run(ctx, d, func(moved func()) *lanes.Pool { return lanes.NewBatch(c.config.BatchSize, d, h, moved) })
}

// deduplicator is the part of a dedup.Deduplicator and its Transport that a Consumer uses.
type deduplicator interface {
	lanes.Deduplicator
	Vouch() (driver.Vouch, error)
}

func (c *Consumer) run(ctx context.Context, d deduplicator, newPool func(moved func()) *lanes.Pool) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("kafkatransport: the Consumer runs already; make one for each member")
	}
	defer c.running.Store(false)
	log := c.config.Logger.With("group", c.group)
	s := &session{
		config:   &c.config,
		log:      log,
		link:     newLink(c.brokers, c.config.ClientID, c.config.Security, c.topics, c.config.metadataTTL),
		status:   status.New(log, "kafka"),
		throttle: throttle{log: log},
		group:    c.group,
		topics:   c.topics,
	}
	s.run = assignment.NewRun(ctx, assignment.Options{
		Bounds:         window.Bounds{Messages: c.config.MaxInFlight, Bytes: c.config.MaxInFlightBytes, Ahead: c.config.MaxAhead},
		Total:          window.NewBudget(c.config.TotalInFlight, c.config.TotalInFlightBytes),
		Pool:           newPool(s.status.Moved),
		Status:         s.status,
		Counts:         &c.counts,
		Log:            log,
		Vouch:          d.Vouch,
		Start:          c.config.StartOffset,
		DrainTimeout:   c.config.DrainTimeout,
		DrainCommit:    min(c.config.HeartbeatInterval, c.config.CommitInterval),
		Grace:          min(maxGrace, c.config.HeartbeatInterval/2),
		Revoked:        ErrRevoked,
		PartitionCount: s.partitionCount,
	})
	defer s.link.close()
	c.session.Store(s)
	defer c.session.Store(nil)
	s.topicsChanged(ctx) // what is known before the join
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                c.group,
		Brokers:           c.brokers,
		Topics:            c.topics,
		Dialer:            s.link.groupDialer(),
		GroupBalancers:    []kafka.GroupBalancer{balancer{kafka.RangeGroupBalancer{}, s}, balancer{kafka.RoundRobinGroupBalancer{}, s}},
		HeartbeatInterval: c.config.HeartbeatInterval,
		SessionTimeout:    c.config.SessionTimeout,
		RebalanceTimeout:  c.config.RebalanceTimeout,
		JoinGroupBackoff:  joinBackoff,
		StartOffset:       c.config.StartOffset,
	})
	if err != nil {
		return fmt.Errorf("kafkatransport: %w", err)
	}
	err = s.follow(ctx, group)
	s.leave(group)
	if stuck := s.run.Finish(min(stragglerTimeout, c.config.DrainTimeout)); stuck != nil {
		err = errors.Join(err, fmt.Errorf("kafkatransport: %w", stuck))
	}
	return err
}
