package kafkatransport

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// Config configures a [Consumer]. A nil *Config, and each zero field, means the default.
// NewConsumer copies it and never changes it. It refuses times shorter than 1ms.
type Config struct {
	// ClientID names this client in the brokers' logs and quotas. Default "oncequeue".
	ClientID string
	// Security of all connections. Default plaintext, without authentication.
	Security Security

	// SessionTimeout is how long a member may be silent before the group gives its
	// partitions to others. Unless configured otherwise, brokers accept 6s to 30m. Default
	// 30s.
	SessionTimeout time.Duration
	// HeartbeatInterval is how often the member reports to the group. It is also how soon it
	// learns of a rebalance. At most SessionTimeout/3. Default: the smaller of 3s and
	// SessionTimeout/6.
	HeartbeatInterval time.Duration
	// RebalanceTimeout is how long the group waits in a rebalance for a member
	// to give up its partitions. Default 60s.
	RebalanceTimeout time.Duration
	// DrainTimeout is how long running handlers may go on when partitions are taken away, or
	// when Run's context ends. Default: the smaller of 20s and
	// min(RebalanceTimeout, SessionTimeout) - 2*HeartbeatInterval, because a member does not
	// report to the group while it drains.
	DrainTimeout time.Duration
	// CommitInterval is how often offsets are committed. After a crash, messages that were
	// settled since the last commit come again, as duplicates. Default 1s.
	CommitInterval time.Duration

	// StartOffset is where a topic begins that is new to the group: kafka.FirstOffset (the
	// default) or kafka.LastOffset. A partition that was added to the topic later begins at
	// its first offset. So does a topic that was deleted and created again while this
	// Consumer ran.
	StartOffset int64
	// OutOfRange says how to go on if a partition does not have the committed offset any
	// more: messages were deleted unread, or its log was cut. Default Fail.
	OutOfRange OffsetPolicy

	// Lanes is the number of calls of Transport.DoEach that Run has under way at once. A
	// handler that does not return occupies one of them. Lanes does not limit how many handlers
	// run at once: dedup.Options.Concurrency does. Default 256; at most 65536.
	Lanes int
	// BatchSize is the largest number of messages in one batch of RunBatch. Default 256, or
	// MaxInFlight if that is less; at most 1024.
	BatchSize int
	// MaxInFlight is how many messages of one partition may be in flight: fetched and not
	// settled. At that number the partition is not fetched until one of them is settled.
	// Default 4096; at least BatchSize; at most 1048576.
	MaxInFlight int
	// MaxAhead is how many offsets of one partition may be fetched from its oldest unsettled
	// message on, settled or not. At that number the partition is not fetched until that
	// message is settled, and Status.Waiting names it. After a crash, the messages that were
	// settled behind it come again, as duplicates. Default 1,000,000.
	MaxAhead int64
	// MaxInFlightBytes is the limit of MaxInFlight in bytes of keys, values and headers. A
	// single message may be larger. Default 16 MiB.
	MaxInFlightBytes int
	// TotalInFlight is how many messages of all partitions together may be in flight.
	// Partitions that have halted do not count. Each partition may have one message in any
	// case, so it does not starve while others are stuck. Default 65536, or MaxInFlight if
	// that is more.
	TotalInFlight int
	// TotalInFlightBytes is the same limit in bytes. In addition, each partition holds the
	// rest of at most one fetch. Default 256 MiB, or MaxInFlightBytes if that is more.
	TotalInFlightBytes int
	// FetchMaxBytes is how many bytes one fetch of one partition asks for. A single message
	// may be larger. Default 1 MiB; at most 1 GiB.
	FetchMaxBytes int
	// MaxWait is how long a broker may delay its answer to a fetch if there are no messages.
	// Default 500ms; at most 500ms.
	MaxWait time.Duration

	// Logger receives changes of state: brokers that stop answering and answer again,
	// partitions that are assigned or halt. Default: no logging.
	Logger *slog.Logger

	watchInterval time.Duration // how often topics are looked at for new partitions
	metadataTTL   time.Duration // how old what is known of topics and leaders may be
	answerWithin  time.Duration // how long a request may be without an answer before Status says so
	fetchPatience time.Duration // how long beyond MaxWait a fetch may take; then its connection counts as dead
	leaveTimeout  time.Duration // how long leaving the group may take: two new connections, and a request on each
}

// OffsetPolicy says how to go on if a partition does not have the committed offset any more.
// Offsets that are skipped are logged and counted in Stats.Skipped.
type OffsetPolicy uint8

const (
	// Fail, the default, halts the partition: an operator must choose another policy or set
	// the offset of the group.
	Fail OffsetPolicy = iota
	// Earliest goes on at the first message that the partition has.
	Earliest
	// Latest goes on at the first message that is written from now on.
	Latest
)

const (
	defaultClientID = "oncequeue"
	maxBatchSize    = 1024
	maxMaxWait      = 500 * time.Millisecond // a shutdown waits for it
	maxLanes        = 1 << 16                // each has a goroutine
	maxMaxInFlight  = 1 << 20                // each partition has room for them
	maxBytesOfOne   = 1 << 30                // of a request or an answer, whose length has 32 bits

	// maxOnTheWire is the longest time of Kafka's protocol, which counts milliseconds in 32 bits.
	maxOnTheWire = math.MaxInt32 * time.Millisecond
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Config) filled() (Config, error) {
	var c Config
	if o != nil {
		c = *o
	}
	wrong := c.refused()
	if len(wrong) > 0 { // the rest compares numbers with each other
		return c, errors.Join(wrong...)
	}
	refuse := func(format string, args ...any) {
		wrong = append(wrong, fmt.Errorf("kafkatransport: "+format, args...))
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
		refuse("HeartbeatInterval %v is more than a third of SessionTimeout %v: one late heartbeat would cost the partitions; shorten it", c.HeartbeatInterval, c.SessionTimeout)
	case budget <= 0:
		refuse("RebalanceTimeout %v leaves no time to drain: it must be more than two heartbeats of %v", c.RebalanceTimeout, c.HeartbeatInterval)
	case c.DrainTimeout > budget:
		refuse("DrainTimeout %v is more than %v = min(RebalanceTimeout %v, SessionTimeout %v) - 2 x HeartbeatInterval %v: the group would give the partitions away during the drain; shorten it or lengthen SessionTimeout", c.DrainTimeout, budget, c.RebalanceTimeout, c.SessionTimeout, c.HeartbeatInterval)
	}
	if c.MaxInFlight < c.BatchSize {
		refuse("MaxInFlight %d is less than BatchSize %d: no batch could fill", c.MaxInFlight, c.BatchSize)
	}
	c.DrainTimeout = orDefault(c.DrainTimeout, min(20*time.Second, budget))
	return c, errors.Join(wrong...)
}

// refused returns an error for each field whose value is out of its bounds by itself.
func (c *Config) refused() (wrong []error) {
	for _, d := range []struct {
		name        string
		value, most time.Duration
	}{
		{"SessionTimeout", c.SessionTimeout, maxOnTheWire}, {"HeartbeatInterval", c.HeartbeatInterval, maxOnTheWire},
		{"RebalanceTimeout", c.RebalanceTimeout, maxOnTheWire}, {"DrainTimeout", c.DrainTimeout, math.MaxInt64},
		{"CommitInterval", c.CommitInterval, math.MaxInt64}, {"MaxWait", c.MaxWait, maxMaxWait},
	} {
		if err := within(d.name, d.value, time.Millisecond, d.most); err != nil {
			wrong = append(wrong, err)
		}
	}
	for _, n := range []struct {
		name        string
		value, most int
	}{
		{"Lanes", c.Lanes, maxLanes}, {"BatchSize", c.BatchSize, maxBatchSize}, {"MaxInFlight", c.MaxInFlight, maxMaxInFlight},
		{"MaxInFlightBytes", c.MaxInFlightBytes, math.MaxInt}, {"TotalInFlight", c.TotalInFlight, math.MaxInt},
		{"TotalInFlightBytes", c.TotalInFlightBytes, math.MaxInt}, {"FetchMaxBytes", c.FetchMaxBytes, maxBytesOfOne},
	} {
		if err := within(n.name, n.value, 1, n.most); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := within("MaxAhead", c.MaxAhead, 1, math.MaxInt64); err != nil {
		wrong = append(wrong, err)
	}
	if c.StartOffset != 0 && c.StartOffset != kafka.FirstOffset && c.StartOffset != kafka.LastOffset {
		wrong = append(wrong, fmt.Errorf("kafkatransport: StartOffset %d is neither kafka.FirstOffset nor kafka.LastOffset", c.StartOffset))
	}
	if c.OutOfRange > Latest {
		wrong = append(wrong, fmt.Errorf("kafkatransport: OutOfRange: there is no policy %d; choose Fail, Earliest or Latest", c.OutOfRange))
	}
	return wrong
}

// within refuses a number that is set and less than least or more than most.
func within[N int | int64 | time.Duration](name string, n, least, most N) error {
	switch {
	case n < 0:
		return fmt.Errorf("kafkatransport: %s %v is negative; leave it zero for the default", name, n)
	case n > 0 && n < least:
		return fmt.Errorf("kafkatransport: %s %v is less than %v; raise it, or leave it zero for the default", name, n, least)
	case n > most:
		return fmt.Errorf("kafkatransport: %s %v is more than %v; lower it", name, n, most)
	}
	return nil
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
