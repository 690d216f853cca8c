package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"

	"github.com/oncequeue/oncequeue/dedup"
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
	brokers  []string
	group    string
	topics   []string
	config   Config
	running  atomic.Bool
	session  atomic.Pointer[session] // of the Run that goes on
	counters counters
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

// Check returns an error if no broker answers or a topic does not exist. [Consumer.Run] would
// wait instead.
func (c *Consumer) Check(ctx context.Context) error {
	l := newLink(c.brokers, c.config.ClientID, c.config.Security, c.topics, c.config.metadataTTL)
	defer l.close()
	return l.check(ctx, c.topics...)
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
	return c.runLanes(ctx, coreOf(d), h)
}

func (c *Consumer) runLanes(ctx context.Context, d deduplicator, h dedup.Handler) error {
	return c.run(ctx, d, func([]*partition) workers { return newLanes(c.config.Lanes, d, h) })
}

// RunBatch is [Consumer.Run] with a batch handler, through [dedup.Deduplicator.DoBatch]. A
// batch has at most BatchSize messages of one partition.
//
// A message that is not settled is tried again in a later batch, before other messages of its
// key. Within one batch, the handler must keep the order of messages with the same Message.Key.
func (c *Consumer) RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error {
	return c.runBatches(ctx, coreOf(d), h)
}

func (c *Consumer) runBatches(ctx context.Context, d deduplicator, h dedup.BatchHandler) error {
	return c.run(ctx, d, func(ps []*partition) workers { return newBatches(c.config.BatchSize, d, h, ps) })
}

func (c *Consumer) run(ctx context.Context, d deduplicator, newWorkers func([]*partition) workers) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("kafkatransport: the Consumer runs already; make one for each member")
	}
	defer c.running.Store(false)
	log := c.config.Logger.With("group", c.group)
	s := &session{
		config:     &c.config,
		log:        log,
		link:       newLink(c.brokers, c.config.ClientID, c.config.Security, c.topics, c.config.metadataTTL),
		status:     &status{log: log},
		counters:   &c.counters,
		group:      c.group,
		topics:     c.topics,
		vouch:      d.Vouch,
		base:       context.WithoutCancel(ctx),
		newWorkers: newWorkers,
	}
	defer s.link.close()
	s.progress.moved()
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
	return errors.Join(err, s.finish())
}

// follow serves one generation of the group after the other. It returns nil when
// ctx ends, or why this member can do nothing more.
func (s *session) follow(ctx context.Context, group *kafka.ConsumerGroup) error {
	for {
		gen, err := group.Next(ctx)
		s.progress.moved()
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
			s.status.bad(theGroup, s.link.explained(err))
			continue // kafka-go waits before it tries again
		}
		g := newGeneration(s, gen.Assignments, func(ctx context.Context, topics []offsetcommit.RequestTopic) (map[string]error, error) {
			return s.link.commit(ctx, gen, topics)
		})
		s.assigned(g)
		why := make(chan outcome, 1)
		gen.Start(func(over context.Context) {
			if over.Err() != nil { // ended before it began: nobody waits for this function
				g.cancel(nil)
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
			return fmt.Errorf("kafkatransport: every partition of this member has %w: %w", dedup.ErrHalted, errors.Join(g.halts...))
		}
	}
}

// assigned notes that the group answered, with the partitions of g.
func (s *session) assigned(g *generation) {
	names := make([]string, len(g.partitions))
	for i, p := range g.partitions {
		names[i] = p.name
	}
	slices.Sort(names)
	s.member = true
	s.counters.rebalances.Add(1)
	s.log.Info("partitions assigned", "partitions", names)
	s.status.joined(names)
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

// finish waits for handlers that outlasted their generation.
func (s *session) finish() error {
	idle := make(chan struct{})
	go func() {
		s.stragglers.Wait()
		close(idle)
	}()
	if pause(idle, min(stragglerTimeout, s.config.DrainTimeout)) {
		handlers := s.active.Load()
		return fmt.Errorf("kafkatransport: %d handlers still run although their context was cancelled, %d other calls wait for the store; their claims stay held until they return or this process ends", handlers, max(s.calls.Load()-handlers, 0))
	}
	return nil
}
