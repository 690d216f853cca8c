package kafkatransport

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Config configures a Consumer. nil and zero values mean the defaults.
// NewConsumer copies it and never writes to it.
type Config struct {
	// ClientID names this client in the brokers' logs and quotas. Default "oncequeue".
	ClientID string
	// Security of all connections. Default plaintext, without authentication.
	Security Security

	// SessionTimeout is how long the group waits for a member that went silent
	// before its partitions go to others. Brokers accept 6s to 30m. Default 30s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often the member reports to the group, which is
	// also how soon it learns of a rebalance. Default: the smaller of
	// 3s and SessionTimeout/6. More than SessionTimeout/3 is refused.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long the group waits in a rebalance for a member
	// to give up its partitions. Default 60s.
	RebalanceTimeout time.Duration
	// DrainTimeout is how long running handlers may go on when partitions are
	// taken away, or when Run's context ends. Default 20s, and as much less as
	// the timeouts above require: min(RebalanceTimeout, SessionTimeout) -
	// 2*HeartbeatInterval, because a member does not report while it drains.
	DrainTimeout time.Duration
	// CommitInterval is how often offsets are committed; after a crash, what was
	// settled since comes again, as duplicates. Default 1s.
	CommitInterval time.Duration

	// StartOffset is where a topic begins that is new to the group:
	// kafka.FirstOffset (the default) or kafka.LastOffset. A partition that was added
	// later begins at its first offset, and so does a topic that was created anew while
	// this Consumer ran.
	StartOffset int64
	// OutOfRange says what to do when a partition no longer has the offset to go
	// on at: its messages were deleted unread, or its log was cut. Default Fail.
	OutOfRange OffsetPolicy

	// Lanes is the number of calls of Deduplicator.DoEach that Run has under way at
	// once. A handler that does not return occupies one. Default 256. It does not bound
	// handlers: dedup.Options.Concurrency does.
	Lanes int
	// BatchSize is the largest number of messages in one call of DoBatch, for
	// RunBatch. Default 256, or MaxInFlight if that is less; at most 1024.
	BatchSize int
	// MaxInFlight is how many messages of one partition may be fetched and not
	// yet settled; then the partition is no longer fetched. Default 4096; at least
	// BatchSize.
	MaxInFlight int
	// MaxAhead is how many offsets of one partition may be fetched from its oldest
	// unsettled message on, settled or not; then the partition is no longer fetched,
	// and Status.Waiting names the message. After a crash those that were settled come
	// again, as duplicates. Default 1,000,000.
	MaxAhead int64
	// MaxInFlightBytes is the same in bytes of keys, values and headers. A single
	// larger message passes. Default 16 MiB.
	MaxInFlightBytes int
	// TotalInFlight bounds the unsettled messages of all partitions together, but
	// for those that halted. A partition may have one in any case, so that none
	// starves while others are stuck. Default 65536, or MaxInFlight if that is more.
	TotalInFlight int
	// TotalInFlightBytes is the same in bytes. Besides, each partition holds the
	// rest of at most one fetch. Default 256 MiB, or MaxInFlightBytes if that is
	// more.
	TotalInFlightBytes int
	// FetchMaxBytes is how much one fetch of one partition asks for, in bytes. A
	// larger message passes. Default 1 MiB.
	FetchMaxBytes int
	// MaxWait is how long a broker may hold back a fetch that finds nothing.
	// Default 500ms; at most 500ms.
	MaxWait time.Duration

	// Logger receives changes of state: brokers lost and found, partitions
	// assigned and halted. Default: discards.
	Logger *slog.Logger

	watchInterval time.Duration // how often topics are looked at for new partitions
	metadataTTL   time.Duration // how old what is known of topics and leaders may be
	answerWithin  time.Duration // how long a request may be without an answer before Status says so
	fetchPatience time.Duration // how long beyond MaxWait a fetch may take; then its connection counts as dead
	leaveTimeout  time.Duration // how long leaving the group may take: two new connections, and a request on each
}

// OffsetPolicy says what to do when a partition does not have the offset to go on
// at. What is skipped is logged and counted in Stats.Skipped.
type OffsetPolicy uint8

const (
	// Fail halts the partition: an operator must choose another policy, or set the
	// group's offset. The default.
	Fail OffsetPolicy = iota
	// Earliest goes on with the first message there is.
	Earliest
	// Latest goes on with what is written from now on.
	Latest
)

const (
	defaultClientID = "oncequeue"
	maxBatchSize    = 1024
	maxMaxWait      = 500 * time.Millisecond
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Config) filled() (Config, error) {
	var c Config
	if o != nil {
		c = *o
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"SessionTimeout", int64(c.SessionTimeout)}, {"HeartbeatInterval", int64(c.HeartbeatInterval)},
		{"RebalanceTimeout", int64(c.RebalanceTimeout)}, {"DrainTimeout", int64(c.DrainTimeout)},
		{"CommitInterval", int64(c.CommitInterval)}, {"MaxWait", int64(c.MaxWait)},
		{"Lanes", int64(c.Lanes)}, {"BatchSize", int64(c.BatchSize)}, {"MaxInFlight", int64(c.MaxInFlight)}, {"MaxAhead", c.MaxAhead},
		{"MaxInFlightBytes", int64(c.MaxInFlightBytes)}, {"TotalInFlight", int64(c.TotalInFlight)},
		{"TotalInFlightBytes", int64(c.TotalInFlightBytes)}, {"FetchMaxBytes", int64(c.FetchMaxBytes)},
	} {
		if n.value < 0 {
			return c, fmt.Errorf("kafkatransport: %s is negative; leave it zero for the default", n.name)
		}
	}
	c.ClientID = orDefault(c.ClientID, defaultClientID)
	c.SessionTimeout = orDefault(c.SessionTimeout, 30*time.Second)
	c.HeartbeatInterval = orDefault(c.HeartbeatInterval, min(3*time.Second, c.SessionTimeout/6))
	c.RebalanceTimeout = orDefault(c.RebalanceTimeout, time.Minute)
	budget := min(c.RebalanceTimeout, c.SessionTimeout) - 2*c.HeartbeatInterval
	c.CommitInterval = orDefault(c.CommitInterval, time.Second)
	c.StartOffset = orDefault(c.StartOffset, kafka.FirstOffset)
	c.Lanes = orDefault(c.Lanes, 256)
	c.MaxInFlight = orDefault(c.MaxInFlight, 4096)
	c.BatchSize = orDefault(c.BatchSize, min(256, c.MaxInFlight))
	c.MaxAhead = orDefault(c.MaxAhead, 1_000_000)
	c.MaxInFlightBytes = orDefault(c.MaxInFlightBytes, 16<<20)
	c.TotalInFlight = orDefault(c.TotalInFlight, max(65536, c.MaxInFlight))
	c.TotalInFlightBytes = orDefault(c.TotalInFlightBytes, max(256<<20, c.MaxInFlightBytes))
	c.FetchMaxBytes = orDefault(c.FetchMaxBytes, 1<<20)
	c.MaxWait = orDefault(c.MaxWait, maxMaxWait)
	c.watchInterval = orDefault(c.watchInterval, 5*time.Second)
	c.metadataTTL = orDefault(c.metadataTTL, defaultMetadataTTL)
	c.answerWithin = orDefault(c.answerWithin, 5*time.Second)
	c.fetchPatience = orDefault(c.fetchPatience, requestTimeout)
	c.leaveTimeout = orDefault(c.leaveTimeout, 3*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case c.HeartbeatInterval > c.SessionTimeout/3:
		return c, fmt.Errorf("kafkatransport: HeartbeatInterval %v is more than a third of SessionTimeout %v: one late heartbeat would cost the partitions; shorten it", c.HeartbeatInterval, c.SessionTimeout)
	case budget <= 0:
		return c, fmt.Errorf("kafkatransport: RebalanceTimeout %v leaves no time to drain: it must be more than two heartbeats of %v", c.RebalanceTimeout, c.HeartbeatInterval)
	case c.DrainTimeout > budget:
		return c, fmt.Errorf("kafkatransport: DrainTimeout %v is more than %v = min(RebalanceTimeout %v, SessionTimeout %v) - 2 x HeartbeatInterval %v: the group would give the partitions away during the drain; shorten it or lengthen SessionTimeout", c.DrainTimeout, budget, c.RebalanceTimeout, c.SessionTimeout, c.HeartbeatInterval)
	case c.StartOffset != kafka.FirstOffset && c.StartOffset != kafka.LastOffset:
		return c, fmt.Errorf("kafkatransport: StartOffset %d is neither kafka.FirstOffset nor kafka.LastOffset", c.StartOffset)
	case c.OutOfRange > Latest:
		return c, fmt.Errorf("kafkatransport: OutOfRange: there is no policy %d; choose Fail, Earliest or Latest", c.OutOfRange)
	case c.BatchSize > maxBatchSize:
		return c, fmt.Errorf("kafkatransport: BatchSize %d is more than %d", c.BatchSize, maxBatchSize)
	case c.MaxInFlight < c.BatchSize:
		return c, fmt.Errorf("kafkatransport: MaxInFlight %d is less than BatchSize %d: no batch could fill", c.MaxInFlight, c.BatchSize)
	case c.MaxWait > maxMaxWait:
		return c, fmt.Errorf("kafkatransport: MaxWait %v is more than %v: a shutdown would wait for it", c.MaxWait, maxMaxWait)
	}
	c.DrainTimeout = orDefault(c.DrainTimeout, min(20*time.Second, budget))
	return c, nil
}

func orDefault[T comparable](v, preset T) T {
	var zero T
	if v == zero {
		return preset
	}
	return v
}

// checkBrokers refuses addresses that can never be reached.
func checkBrokers(brokers []string) error {
	if len(brokers) == 0 {
		return errors.New("kafkatransport: no broker address; give at least one as host:port")
	}
	for _, b := range brokers {
		host, port, err := net.SplitHostPort(b)
		if err == nil && host == "" {
			err = errors.New("no host")
		}
		if err == nil {
			if n, e := strconv.ParseUint(port, 10, 16); e != nil || n == 0 {
				err = fmt.Errorf("port %q is not a number from 1 to 65535", port)
			}
		}
		if err != nil {
			return fmt.Errorf("kafkatransport: broker address %q: %w; write host:port", b, err)
		}
	}
	return nil
}

func checkTopic(topic string) error {
	if topic == "" || len(topic) > 249 || strings.Trim(topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return fmt.Errorf("kafkatransport: %q is no topic name: 1 to 249 of a-z A-Z 0-9 . _ -", topic)
	}
	return nil
}
