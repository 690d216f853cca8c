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

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Policy says what to do with a message that is flagged: unkeyed, in conflict, stale or
// ambiguous. The options OnUnkeyed, OnConflict, OnStale and OnAmbiguous take one each.
type Policy uint8

const (
	// PolicyDefault stands for the default that is named at each option.
	PolicyDefault Policy = iota
	// PolicyProcess runs the handler. Claim.Stale or Claim.Ambiguous is set. An unkeyed
	// message runs with the zero Claim, and again at each delivery. OnConflict does not
	// take it.
	PolicyProcess
	// PolicyPark passes the message to Options.DeadLetter, and settles it when that returns
	// nil. It needs a DeadLetter.
	PolicyPark
	// PolicySkip settles the message without running the handler, once the message that
	// holds the key is completed or parked. Until then it is Busy. Only OnConflict takes it.
	PolicySkip
	// PolicyHalt does not settle the message and sets Result.Halt: the caller stops,
	// because an operator must look.
	PolicyHalt
)

var policyNames = [...]string{"default", "process", "park", "skip", "halt"}

// String returns the name in lower case, such as "park".
func (p Policy) String() string { return nameOf(policyNames[:], int(p)) }

// StorePolicy says what to do while the store does not answer. Options.OnStoreError takes one.
type StorePolicy uint8

const (
	// StorePause, the default, makes the Outcome Unavailable: deliver the message again
	// later.
	StorePause StorePolicy = iota
	// StoreHalt makes the Outcome Unavailable and sets Result.Halt.
	StoreHalt
)

// Options configure a [Deduplicator]. A nil *Options, and each zero field, means the default.
// [New] copies the Options and never changes them.
type Options struct {
	// TTL is how long a result is remembered, from the moment when it is recorded. It
	// should be longer than the longest backlog plus the latest retry of a producer. A
	// message without a record that was published longer ago is stale. Default 24h.
	TTL time.Duration
	// Lease is how long a claim lasts after its holder died. While the handler runs, the
	// lease is renewed after each third of it. Default 30s; at least 100ms; at most TTL.
	Lease time.Duration
	// HandlerTimeout is how long one call of the handler may take; of a batch handler or a
	// RoundHandler, the call for the whole batch. After that, the context of the call ends with the cause
	// ErrTimeout, and the lease is not renewed any more. When the lease has ended, another
	// run may take over, in this process too, flagged Ambiguous. A handler that has not
	// returned by then is logged with its stack, and keeps its slot. Default 10m; negative:
	// no limit.
	HandlerTimeout time.Duration
	// MaxAttempts is the number of runs that may fail or die before the message is parked.
	// A process that dies costs an attempt of every message that it has claimed: all of a
	// batch, of a DoRound or of a DoEach, and those whose handler was about to start. It needs a
	// DeadLetter. Default 10 with a DeadLetter, without one no limit; negative: no limit.
	MaxAttempts int
	// Backoff returns how long to wait before a message is delivered again after its
	// failed run number attempt, counted from 1. A negative wait counts as none; Settle and
	// the transports wait some milliseconds at least. Many goroutines call Backoff at once.
	// Default Backoff(100*time.Millisecond, 30*time.Second).
	Backoff func(attempt int) time.Duration
	// MaxResult is the length in bytes of the longest result that is kept. If a result is
	// longer, the key is completed without it, and duplicates get Result.Omitted. Default
	// 64 KiB; at most 256 MiB; negative: no result is kept.
	MaxResult int
	// Fingerprint returns a hash of what two messages with one key must have in common; if
	// they have not, the later one is a conflict. Many goroutines call it at once. A
	// message for which it panics is unkeyed. If you change the function, change
	// FingerprintName too. Default PayloadFingerprint; NoFingerprint turns the comparison
	// off.
	Fingerprint func(*Message) Fingerprint
	// FingerprintName is a name for the Fingerprint function. A message is not compared with
	// records that were made under another name. Choose a new name, such as
	// "payload,amount", whenever you change the function; else redelivered messages become
	// conflicts. Default empty.
	FingerprintName string
	// DeadLetter parks a message, for the reason why. It returns nil only when the dead
	// letter is confirmed to be durable. It may be called again for the same message, if
	// the confirmation or the record of it was lost. After an error, the message comes
	// again later. After an error marked by Permanent, it halts. Many goroutines call
	// DeadLetter at once. See DeadLetters for one that publishes. Default nil: no message
	// can be parked.
	DeadLetter func(ctx context.Context, m *Message, why error) error

	// OnUnkeyed decides about messages without a usable key: PolicyProcess (run without
	// deduplication), PolicyPark or PolicyHalt. Default PolicyPark with a DeadLetter, else
	// PolicyHalt.
	OnUnkeyed Policy
	// OnConflict decides about messages whose key is recorded with another payload:
	// PolicyPark, PolicySkip or PolicyHalt. Default PolicyPark with a DeadLetter, else
	// PolicyHalt.
	OnConflict Policy
	// OnStale decides about messages without a record that are older than the store's
	// memory reaches: PolicyProcess, PolicyPark or PolicyHalt. Default PolicyProcess, with
	// Claim.Stale set.
	OnStale Policy
	// OnAmbiguous decides about messages of which an earlier run may have had its effect:
	// PolicyProcess, PolicyPark or PolicyHalt. Default PolicyProcess, with Claim.Ambiguous
	// set.
	OnAmbiguous Policy

	// OnStoreError decides what to do while the store does not answer. Default StorePause.
	// If the store says that it will never answer again, the Result has Halt in any case.
	OnStoreError StorePolicy
	// ClockSkew is how far the clocks of producers and brokers may be ahead of the store's
	// clock. A message counts as that much older when the Deduplicator decides whether it
	// is stale. Default 5s; negative: none.
	ClockSkew time.Duration
	// Concurrency is the number of handlers that run at once. There may be many more
	// callers of Do. Their keys are claimed together, ahead of their handlers: as many as
	// should start within about 100ms, judged by how long handlers have taken so far. A call
	// of Do inside a handler runs in the slot of that handler. Default 2 x GOMAXPROCS.
	Concurrency int
	// Hooks are called as messages are processed. Default none.
	Hooks Hooks
	// Logger receives changes of state, and decisions that an operator should know: at most
	// one line per second for each Outcome, except that each halt is logged. Default: no
	// logging.
	Logger *slog.Logger

	tag driver.Tag // of FingerprintName
}

const (
	defaultTTL            = 24 * time.Hour
	defaultLease          = 30 * time.Second
	minLease              = 100 * time.Millisecond
	defaultHandlerTimeout = 10 * time.Minute
	defaultMaxAttempts    = 10
	maxAttempts           = 65_535 // on Redis it has two bytes
	defaultMaxResult      = 64 << 10
	maxMaxResult          = 256 << 20
	defaultClockSkew      = 5 * time.Second
)

// filled returns a copy of o with the defaults in place, or an error that names all wrong options.
func (o *Options) filled() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	dead := c.DeadLetter != nil
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("dedup: "+format, args...)) }
	switch {
	case c.MaxAttempts > maxAttempts:
		refuse("MaxAttempts %d is more than %d, the most that every store can count; negative: no limit", c.MaxAttempts, maxAttempts)
	case c.MaxAttempts > 0 && !dead:
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
	c.tag = tagOf(c.FingerprintName)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.fillPolicies(refuse)
	c.check(refuse)
	return c, errors.Join(wrong...)
}

// fillPolicies puts the default policies in place.
func (c *Options) fillPolicies(refuse func(format string, args ...any)) {
	dead := c.DeadLetter != nil
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
}

// check refuses values that make no sense.
func (c *Options) check(refuse func(format string, args ...any)) {
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
}

// patience is how long a delivery waits for another of its key in this process.
func (o *Options) patience() time.Duration { return min(o.Lease, time.Second) }

func orDefault[T comparable](v, preset T) T {
	var zero T
	if v == zero {
		return preset
	}
	return v
}

// Backoff returns a function for Options.Backoff: an exponential backoff with full jitter.
// After failed run n, it returns a random duration between 0 and the smaller of limit and
// first x 2^(n-1).
func Backoff(first, limit time.Duration) func(attempt int) time.Duration {
	limit = min(max(limit, 0), math.MaxInt64-1)
	first = min(max(first, 0), limit)
	return func(attempt int) time.Duration {
		ceiling := limit
		if shift := max(attempt, 1) - 1; shift < 63 && first <= limit>>shift {
			ceiling = first << shift
		}
		return rand.N(ceiling + 1)
	}
}
