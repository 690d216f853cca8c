package dedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime"
	"time"
)

// Policy says what to do with a message that cannot simply be processed.
type Policy uint8

const (
	// PolicyDefault is the default named at each option.
	PolicyDefault Policy = iota
	// PolicyProcess runs the handler, with the flag set in Message.Claim.
	PolicyProcess
	// PolicyPark sends the message to DeadLetter and settles it once that is confirmed.
	PolicyPark
	// PolicySkip settles the message as a duplicate. For OnConflict only.
	PolicySkip
	// PolicyHalt does not settle it: Result.Halt is set, an operator must look.
	PolicyHalt
)

var policyNames = [...]string{"default", "process", "park", "skip", "halt"}

func (p Policy) String() string { return nameOf(policyNames[:], int(p)) }

// StorePolicy says what to do while the store does not answer.
type StorePolicy uint8

const (
	// StorePause answers Unavailable: deliver again later. The default.
	StorePause StorePolicy = iota
	// StoreHalt answers Unavailable with Result.Halt set.
	StoreHalt
)

// Options configure a Deduplicator. nil and zero values mean the defaults. New
// copies the Options and never writes to them.
type Options struct {
	// TTL is how long a result is remembered from the moment it is recorded.
	// Make it wider than the longest backlog plus the latest retry. Default 24h.
	TTL time.Duration
	// Lease is how long a claim outlives a holder that died. It is renewed
	// while the handler runs. Default 30s; at least 100ms; at most TTL.
	Lease time.Duration
	// HandlerTimeout is how long a handler may run; then its context is
	// cancelled with ErrTimeout and its lease no longer renewed. Once that has ended,
	// another run may take over, here too, flagged Ambiguous; a handler that has not
	// returned by then is logged with its stack, and keeps its slot. It covers one
	// handler call: of a batch handler, the whole batch. Default 10m; negative: none.
	HandlerTimeout time.Duration
	// MaxAttempts is the number of runs that may fail or die before the message
	// is parked. A process that dies uses up an attempt of every message it has
	// claimed: those of a batch, or of one DoEach, and those about to start.
	// Default 10 with DeadLetter, else none; negative: none.
	MaxAttempts int
	// Backoff is how long to wait before delivering a message again after its
	// attempt-th failed run, counted from 1. Default: exponential from 100ms to
	// 30s, with full jitter. A negative wait counts as none, and Settle and the
	// consumers of package transport wait some milliseconds at least.
	Backoff func(attempt int) time.Duration
	// MaxResult is the length in bytes of the longest result that is recorded. A
	// longer one is recorded as omitted, which is no error. Default 64 KiB;
	// negative: no result is kept. At most 256 MiB.
	MaxResult int
	// Fingerprint is what two payloads of one key must share. Default
	// PayloadFingerprint; NoFingerprint turns the comparison off.
	Fingerprint func(*Message) Fingerprint
	// DeadLetter parks a message: it returns nil only when the dead letter is
	// confirmed. It may be called again for the same message if the confirmation
	// or the record of it was lost. An error comes again later; one marked by
	// Permanent halts. It is called by many goroutines at once.
	// Default nil: nothing can be parked.
	DeadLetter func(ctx context.Context, m *Message, why error) error

	OnUnkeyed   Policy // no usable key. Process (runs without dedup), Park, Halt. Default Park with DeadLetter, else Halt
	OnConflict  Policy // same key, other payload. Park, Skip, Halt. Default Park with DeadLetter, else Halt
	OnStale     Policy // older than the store's memory. Process, Park, Halt. Default Process
	OnAmbiguous Policy // an earlier run may have had its effect. Process, Park, Halt. Default Process

	// OnStoreError says what to do while the store does not answer. Default StorePause.
	OnStoreError StorePolicy
	// ClockSkew is how far the clocks of producers and brokers may be off from
	// the store's, for telling stale messages. Default 5s; negative: none.
	ClockSkew time.Duration
	// Concurrency is the number of handlers that run at once. Callers of Do may
	// be many more: their keys are claimed in common batches, as far ahead of their
	// handlers as those will start within about 100ms. A call of Do inside a handler
	// runs in the slot of that handler. Default 2 x GOMAXPROCS.
	Concurrency int
	// Hooks observe. Default none.
	Hooks Hooks
	// Logger receives changes of state and, rate-limited, decisions that an
	// operator should know. Default: discards.
	Logger *slog.Logger
}

const (
	defaultTTL            = 24 * time.Hour
	defaultLease          = 30 * time.Second
	minLease              = 100 * time.Millisecond
	defaultHandlerTimeout = 10 * time.Minute
	defaultMaxAttempts    = 10
	defaultMaxResult      = 64 << 10
	maxMaxResult          = 256 << 20
	defaultClockSkew      = 5 * time.Second
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Options) filled() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	dead := c.DeadLetter != nil
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("dedup: "+format, args...)) }
	if c.MaxAttempts > 0 && !dead {
		refuse("MaxAttempts needs a DeadLetter: without one the message would be dropped")
	}
	c.TTL = orDefault(c.TTL, defaultTTL)
	c.Lease = orDefault(c.Lease, defaultLease)
	c.HandlerTimeout = orDefault(c.HandlerTimeout, defaultHandlerTimeout)
	if dead {
		c.MaxAttempts = orDefault(c.MaxAttempts, defaultMaxAttempts)
	}
	c.MaxAttempts = max(c.MaxAttempts, 0) // from here on 0 is none
	c.MaxResult = max(orDefault(c.MaxResult, defaultMaxResult), 0)
	c.ClockSkew = max(orDefault(c.ClockSkew, defaultClockSkew), 0)
	c.Concurrency = orDefault(c.Concurrency, 2*runtime.GOMAXPROCS(0))
	if c.Backoff == nil {
		c.Backoff = Backoff(100*time.Millisecond, 30*time.Second)
	}
	if c.Fingerprint == nil {
		c.Fingerprint = PayloadFingerprint
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	unfit := PolicyHalt
	if dead {
		unfit = PolicyPark
	}
	for _, p := range []struct {
		name    string
		policy  *Policy
		preset  Policy
		refused Policy
		why     string
	}{
		{"OnUnkeyed", &c.OnUnkeyed, unfit, PolicySkip, "a message without a key is no duplicate of anything, and would be lost"},
		{"OnConflict", &c.OnConflict, unfit, PolicyProcess, "its record would replace that of the other message"},
		{"OnStale", &c.OnStale, PolicyProcess, PolicySkip, "a message that was never processed would be lost"},
		{"OnAmbiguous", &c.OnAmbiguous, PolicyProcess, PolicySkip, "a message whose effect did not happen would be lost"},
	} {
		*p.policy = orDefault(*p.policy, p.preset)
		switch {
		case *p.policy > PolicyHalt:
			refuse("%s: there is no policy %d", p.name, *p.policy)
		case *p.policy == p.refused:
			refuse("%s cannot be %v: %s", p.name, *p.policy, p.why)
		case *p.policy == PolicyPark && !dead:
			refuse("%s is park, which needs a DeadLetter: set one, or choose halt", p.name)
		}
	}
	switch {
	case c.TTL < 0:
		refuse("TTL %v is negative", c.TTL)
	case c.Lease >= minLease && c.TTL < c.Lease:
		refuse("TTL %v is shorter than Lease %v: a key would be forgotten while it is processed; lengthen TTL or shorten Lease", c.TTL, c.Lease)
	}
	if c.Lease < minLease {
		refuse("Lease %v is shorter than %v, too short to be renewed in time", c.Lease, minLease)
	}
	if c.MaxResult > maxMaxResult {
		refuse("MaxResult %d is more than %d, which not every store can hold; lower it, and record where a larger result is", c.MaxResult, maxMaxResult)
	}
	if c.Concurrency < 0 {
		refuse("Concurrency %d is negative", c.Concurrency)
	}
	if c.OnStoreError > StoreHalt {
		refuse("OnStoreError: there is no policy %d", c.OnStoreError)
	}
	return c, errors.Join(wrong...)
}

func orDefault[T comparable](v, preset T) T {
	var zero T
	if v == zero {
		return preset
	}
	return v
}

// Backoff returns an exponential backoff with full jitter: after the n-th
// failure, evenly distributed up to first x 2^(n-1), and at most limit.
func Backoff(first, limit time.Duration) func(attempt int) time.Duration {
	limit = min(max(limit, 0), math.MaxInt64-1)
	first = min(max(first, 0), limit)
	return func(attempt int) time.Duration {
		ceiling := limit
		if shift := max(attempt, 1) - 1; shift < 40 {
			if d := first << shift; d > 0 && d < limit {
				ceiling = d
			}
		}
		return rand.N(ceiling + 1)
	}
}
