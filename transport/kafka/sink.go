package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/life"
)

// SinkConfig configures a [Sink]. A nil *SinkConfig, and each zero field, means the default.
// NewSink copies it and never changes it.
type SinkConfig struct {
	// ClientID names this client in the brokers' logs and quotas. Default "oncequeue".
	ClientID string
	// Security of all connections. Default plaintext, without authentication.
	Security Security
	// Compression of the batches: kafka.Gzip, kafka.Snappy, kafka.Lz4 or kafka.Zstd.
	// Default: none.
	Compression kafka.Compression
	// Timeout is how long one request may take. After that its messages are MaybeDone. The
	// brokers wait half of it for their replicas. Default 10s.
	Timeout time.Duration
	// BatchBytes is the largest size of a batch, in bytes before compression. A larger
	// message is sent alone. Default 900 KB, below the brokers' default limit of 1 MiB.
	BatchBytes int
	// Logger receives a line when a quota of the brokers is used up, at most once a minute.
	// The Sink then sends as slowly as the brokers ask for. These pauses do not count for
	// Timeout. Default: no logging.
	Logger *slog.Logger
}

// Sink writes messages to Kafka and waits until all in-sync replicas have confirmed them.
// [NewSink] makes one. Its methods may be called by several goroutines at once.
type Sink struct {
	link     *link
	topic    string
	config   SinkConfig
	turn     atomic.Uint32 // gives messages without a key a partition
	life     life.Life
	throttle throttle
}

var errSinkClosed = errors.New("kafkatransport: the sink is closed")

// NewSink makes a Sink that writes to the topic. If topic is empty, it writes each message to
// Message.Topic. Brokers are given as host:port. c may be nil. NewSink does not connect:
// [Sink.Check] does.
func NewSink(brokers []string, topic string, c *SinkConfig) (*Sink, error) {
	s := &Sink{topic: topic}
	if c != nil {
		s.config = *c
	}
	if err := checkBrokers(brokers); err != nil {
		return nil, err
	}
	var topics []string
	if topic != "" {
		if err := checkTopic(topic); err != nil {
			return nil, err
		}
		topics = []string{topic}
	}
	s.config.ClientID = orDefault(s.config.ClientID, defaultClientID)
	s.config.Timeout = orDefault(s.config.Timeout, requestTimeout)
	s.config.BatchBytes = orDefault(s.config.BatchBytes, 900_000)
	wrong := []error{
		within("Timeout", s.config.Timeout, time.Millisecond, maxOnTheWire),
		within("BatchBytes", s.config.BatchBytes, 1, maxBytesOfOne),
	}
	if s.config.Compression != 0 && s.config.Compression.Codec() == nil {
		wrong = append(wrong, fmt.Errorf("kafkatransport: there is no compression %d", s.config.Compression))
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	if s.config.Logger == nil {
		s.config.Logger = slog.New(slog.DiscardHandler)
	}
	s.throttle.log = s.config.Logger
	s.link = newLink(slices.Clone(brokers), s.config.ClientID, s.config.Security, topics, defaultMetadataTTL)
	return s, nil
}

// Check returns an error if no broker answers, the topic does not exist, or the right to
// write to it is missing.
func (s *Sink) Check(ctx context.Context) error {
	l := newLink(s.link.brokers, s.config.ClientID, s.config.Security, s.link.topics, defaultMetadataTTL)
	defer l.close()
	if s.topic == "" {
		return l.check(ctx)
	}
	if err := l.check(ctx, s.topic); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := l.checkTopics(ctx, write, s.topic); err != nil {
		return fmt.Errorf("kafkatransport: %w", err)
	}
	return nil
}

// Close waits for the calls of Publish that are under way and closes the connections. Later
// calls of Publish fail.
func (s *Sink) Close() error {
	s.life.End()
	s.link.close()
	return nil
}

// Publish writes Key, Value and Headers of the messages, with Published as the timestamp. It
// returns one error for each message, in their order:
//
//   - nil: the message is confirmed.
//   - marked [dedup.Transient]: the message is not written, and the message is not the reason:
//     no broker answers, the topic does not exist, a replica is missing, or an earlier message
//     for its partition was not written.
//   - marked [dedup.MaybeDone]: the message may or may not be written, as when the leader of
//     its partition moves before all replicas have it. Publish does not try again.
//   - marked [dedup.Permanent]: the message is not written, and will never be written as it is:
//     it is too large, or the topic's rules refuse it.
//
// The partition is the one that the Java client would choose for the key. A message without a
// key goes to the partition with the number that it came from, if the topic has it. The
// messages of one call are written to a partition in their order. A call sends one request to
// each broker, or several if it is large: fewer calls with more messages cost the brokers less.
//
// Publish does not change the messages, and does not use them after it returns.
func (s *Sink) Publish(ctx context.Context, ms []*dedup.Message) []error {
	if !s.life.Enter() {
		return life.All(len(ms), errSinkClosed)
	}
	defer s.life.Leave()
	errs := make([]error, len(ms))
	shares := make([]*share, 0, 8)
	byTarget := make(map[target]*share, 8)
	topics := make(map[string]leaders, 1)
	for i, m := range ms {
		topic := s.topic
		if topic == "" {
			topic = m.Topic
		}
		ls, known := topics[topic]
		if !known {
			if ls = s.leaders(ctx, topic); ls.err != nil {
				ls.err = fmt.Errorf("kafkatransport: publish to %s: %w", topic, ls.err)
			}
			topics[topic] = ls
		}
		if ls.err != nil {
			errs[i] = ls.err
			continue
		}
		t := target{topic, s.choose(m, len(ls.brokers))}
		sh := byTarget[t]
		if sh == nil {
			sh = &share{target: t, limit: math.MaxInt32}
			byTarget[t] = sh
			shares = append(shares, sh)
		}
		sh.indices = append(sh.indices, i)
	}
	w := writer{sink: s, messages: ms, errs: errs}
	w.write(ctx, shares, topics)
	return errs
}

// target is where a message goes.
type target struct {
	topic     string
	partition int
}

func (t target) String() string { return fmt.Sprintf("%s/%d", t.topic, t.partition) }

// leaders are the brokers that lead the partitions of a topic, or why they are not
// known.
type leaders struct {
	brokers []int32 // by partition; negative: none
	err     error
}

func (l leaders) of(partition int) int32 {
	if partition < len(l.brokers) {
		return l.brokers[partition]
	}
	return -1
}

func (s *Sink) leaders(ctx context.Context, topic string) leaders {
	if err := checkTopic(topic); err != nil {
		return leaders{err: dedup.Permanent(err)}
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	for range 2 {
		brokers, err := s.link.leaders(ctx, topic)
		if err != nil {
			s.link.renew()
			return leaders{err: dedup.Transient(err)}
		}
		if len(brokers) > 0 {
			return leaders{brokers: brokers}
		}
		s.link.renew() // it may have been created since
	}
	return leaders{err: dedup.Transient(fmt.Errorf("%w; create it, or correct the name", errNoTopic))}
}

// choose returns a partition of n.
func (s *Sink) choose(m *dedup.Message, n int) int {
	switch p := int(m.Position.Partition); {
	case m.Key != nil:
		return javaPartition(m.Key, n)
	case m.Position.Source != "" && 0 <= p && p < n:
		return p
	}
	return int(s.turn.Add(1) % uint32(n))
}
