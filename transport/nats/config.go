package natstransport

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// Config configures a Consumer. nil and zero values mean the defaults.
// NewConsumer copies it and never writes to it.
type Config struct {
	// Workers is the number of messages that Run has in Deduplicator.Do at once.
	// Default 256; at most 65536. It does not bound handlers: dedup.Options.Concurrency does.
	Workers int
	// BatchSize is the largest number of messages in one call of DoBatch, for
	// RunBatch. Default 256; at most 1024.
	BatchSize int
	// Prefetch is how many messages may be in hand: delivered to this member and
	// not yet answered. The consumer's MaxAckPending bounds all members together; the
	// server's default for that, 1000, is little for a store that waits for its disk.
	// Default: about what is settled in a second, so that messages do not wait here
	// while other members are idle: from Workers, or four times BatchSize for RunBatch,
	// up to 16 times that. At most 1048576.
	Prefetch int
	// PrefetchBytes bounds the same in bytes, subjects and headers included. One
	// message may always be in hand, however large. Default 64 MiB.
	PrefetchBytes int
	// OrderBy returns the key of a message's order: messages with the same key are
	// handled one after the other, in the order of the stream; empty for no order.
	// Default nil: no order. See OrderByHeader and OrderByToken. For Run only.
	//
	// A message that fails is then tried again in place, and those behind it wait:
	// they stay in hand and fill Prefetch, so use a dead letter. What follows a message
	// whose time ran out, as in an outage, is handed back until that has come again, at
	// most for twice AckWait.
	//
	// The order holds within one member, also over connections that break and servers
	// that restart: to share the work, give each member a durable consumer of its own
	// with a filter on subjects. What was delivered and lost, with a connection or with
	// a member that died, comes again when AckWait has passed, or the longest of BackOff.
	// A member that binds while messages are unanswered, or finds deliveries missing,
	// asks for no more, whatever its key, for that time and some seconds, and up to half a
	// minute longer where the server still believes in the connection that broke; what is
	// in hand goes on. So keep AckWait short: handlers may outlive it. What comes again is
	// put in order before any of it is handled, and may be more than Prefetch and
	// PrefetchBytes for that. A member that sees another take messages of its consumer logs
	// that, and does not wait for what is missing until it connects again.
	OrderBy func(*dedup.Message) string
	// ConfirmAcks waits for the server's confirmation of each acknowledgement. It
	// costs a round trip for each message, many of them at once, and saves the
	// redelivery, later, of messages whose acknowledgement was lost.
	ConfirmAcks bool
	// Reply sends the result of a message, once it is recorded, to the subject that
	// its header Dedup-Reply-To names: to a duplicate the recorded one, to a message
	// that is refused an error, as a Reply does. The handler's results and errors are
	// those of a Reply too: one marked by dedup.Permanent is an answer, and no dead
	// letter. A result longer than dedup.Options.MaxResult is answered 410. Who may
	// publish to the stream has replies sent to any subject that this connection may
	// publish to, but for those that begin with $.
	Reply bool
	// DrainTimeout is how long running handlers may go on after Run's context has
	// ended. Default 20s.
	DrainTimeout time.Duration
	// Logger receives changes of state: the server lost and found, the consumer
	// bound, gone and halted. Default: discards.
	Logger *slog.Logger

	heartbeat  time.Duration // how often the server shows that a pull request lives
	expires    time.Duration // how long a pull request waits for messages
	patience   time.Duration // how long a request to the server may take
	look       time.Duration // how often the consumer is looked at
	maxBackoff time.Duration // the longest pause between two tries to bind
	slack      time.Duration // how long after its time a message may come again
}

const (
	defaultWorkers = 256
	maxBatchSize   = 1024
	maxWorkers     = 1 << 16 // each is a goroutine
	maxPrefetch    = 1 << 20 // there is room for them
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Config) filled() (Config, error) {
	var c Config
	if o != nil {
		c = *o
	}
	if err := errors.Join(
		within("Workers", c.Workers, maxWorkers),
		within("BatchSize", c.BatchSize, maxBatchSize),
		within("Prefetch", c.Prefetch, maxPrefetch),
		within("PrefetchBytes", c.PrefetchBytes, math.MaxInt),
		within("DrainTimeout", c.DrainTimeout, math.MaxInt64),
	); err != nil {
		return c, err
	}
	c.Workers = orDefault(c.Workers, defaultWorkers)
	c.BatchSize = orDefault(c.BatchSize, 256)
	c.PrefetchBytes = orDefault(c.PrefetchBytes, 64<<20)
	c.DrainTimeout = orDefault(c.DrainTimeout, 20*time.Second)
	c.heartbeat = orDefault(c.heartbeat, 5*time.Second)
	c.expires = orDefault(c.expires, 30*time.Second)
	c.patience = orDefault(c.patience, 5*time.Second)
	c.look = orDefault(c.look, 10*time.Second)
	c.maxBackoff = orDefault(c.maxBackoff, 5*time.Second)
	// A server that was restarted, or leads anew, looks for what has expired after 1.5 s
	// at the latest (applyState in its consumer.go).
	c.slack = orDefault(c.slack, 2*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// within refuses a number that is negative or more than most.
func within[N int | time.Duration](name string, n, most N) error {
	switch {
	case n < 0:
		return fmt.Errorf("natstransport: %s %v is negative; leave it zero for the default", name, n)
	case n > most:
		return fmt.Errorf("natstransport: %s %v is more than %v; lower it", name, n, most)
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

// checkName refuses what can be no name of a stream or consumer.
func checkName(what, name string) error {
	if name == "" {
		return fmt.Errorf("natstransport: the %s has no name", what)
	}
	if strings.ContainsAny(name, " \t\r\n.*>/\\") {
		return fmt.Errorf("natstransport: %q is no name of a %s: it has no spaces and none of . * > / \\", name, what)
	}
	return nil
}

// checkSubject refuses what cannot be published to.
func checkSubject(subject string) error {
	if strings.ContainsAny(subject, " \t\r\n") {
		return fmt.Errorf("natstransport: subject %q: it must not contain spaces", subject)
	}
	for token := range strings.SplitSeq(subject, ".") {
		switch token {
		case "":
			return fmt.Errorf("natstransport: subject %q: a token between dots is empty", subject)
		case "*", ">":
			return fmt.Errorf("natstransport: subject %q: nothing can be published to a wildcard; name one subject", subject)
		}
	}
	return nil
}

var errNoJetStream = errors.New("natstransport: no JetStream; make one with jetstream.New(conn)")
