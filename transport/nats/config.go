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

// Config configures a [Consumer]. A nil *Config, and each zero field, means the default.
// NewConsumer copies it and never changes it.
type Config struct {
	// Workers is the number of messages that Run has in Deduplicator.Do at once. It does not
	// limit how many handlers run at once: dedup.Options.Concurrency does. Default 256; at
	// most 65536.
	Workers int
	// BatchSize is the largest number of messages in one batch of RunBatch. Default 256; at
	// most 1024.
	BatchSize int
	// Prefetch is how many messages may be in hand: delivered to this member and not yet
	// answered. Default: as many as are settled in about a second, so that no message waits
	// here while other members are idle; at least Workers, or 4*BatchSize for RunBatch, and
	// at most 16 times that. At most 1048576.
	//
	// The durable consumer's MaxAckPending limits all members together. The server's default
	// for it is 1000, which is low if the store waits for a disk.
	Prefetch int
	// PrefetchBytes is the same limit in bytes of subjects, headers and payloads. One message
	// may be in hand in any case, however large. Default 64 MiB.
	PrefetchBytes int
	// OrderBy returns the order key of a message. Messages with the same order key are
	// handled one after the other, in the order of the stream. An empty order key means no
	// order. It must not panic: a panic ends the process. Only Run uses it: RunBatch returns
	// an error if it is set. See OrderByHeader and OrderByToken. Default nil: no order.
	//
	// Failures: a message that fails is tried again in place, and later messages with its
	// order key wait. They stay in hand and fill Prefetch, so set a
	// dedup.Options.DeadLetter. If a message's AckWait expires, for example in an outage,
	// later messages with its order key are handed back to the server until the expired one
	// has been redelivered, for at most 2 x AckWait.
	//
	// Several members: the order holds within one member. To share the work, give each member
	// a durable consumer of its own, with a filter on subjects. A member that notices another
	// member on its durable consumer logs that, and the order no longer holds.
	//
	// Interruptions: the order holds although connections break and servers restart. A
	// delivery that got lost comes again when AckWait, or the longest of BackOff, has passed.
	// If a member finds deliveries missing, or binds while some are unanswered, it asks for no
	// messages for that time and some seconds more. It can be half a minute longer if the
	// server still believes in the broken connection. Messages in hand go on. The redelivered
	// messages are sorted before one of them is handled, and may exceed Prefetch and
	// PrefetchBytes. So keep AckWait short. Handlers may run for longer than AckWait.
	OrderBy func(*dedup.Message) string
	// ConfirmAcks makes the Consumer wait for the server's confirmation of each
	// acknowledgement, many at a time. It costs a round trip for each message. It saves the
	// later redelivery of a message whose acknowledgement got lost.
	ConfirmAcks bool
	// Reply sends a reply when a message is settled or refused, to the subject in its header
	// Dedup-Reply-To. The handler returns results and errors as for a type Reply, and the
	// replies are the same: a duplicate gets the recorded reply, and an error marked by
	// dedup.Permanent is a reply, not a dead letter. A result longer than
	// dedup.Options.MaxResult is answered with code 410.
	//
	// Anybody who may publish to the stream can make this connection send replies to any
	// subject to which it may publish, except subjects that begin with $.
	Reply bool
	// DrainTimeout is how long running handlers may go on after Run's context has ended.
	// After that their contexts end with the cause ErrRevoked. Default 20s.
	DrainTimeout time.Duration
	// Logger receives changes of state: a server that stops answering and answers again, a
	// durable consumer that is bound, is missing or halts. Default: no logging.
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
