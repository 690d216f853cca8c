package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// Relay moves messages from a source to a sink.
type Relay struct {
	config  Config
	source  source
	sink    sink
	letters sink // nil: none
	dedup   *dedup.Deduplicator
	records driver.Store
	store   io.Closer // records
	output  health    // of the target
	grave   health    // of the dead letters
	started time.Time
	failed  context.CancelCauseFunc // ends Run: the store never answers again

	activity  activity
	prober    prober
	server    *server // nil: none
	registry  *prometheus.Registry
	unwritten prometheus.Counter // HTTP answers

	tallies
}

// tallies count messages for the Summary.
type tallies struct {
	relayed, ambiguous, stale, duplicates, parked, alreadyParked, halted, retried atomic.Int64
}

// checkTimeout bounds how long Open waits for the brokers.
const checkTimeout = 10 * time.Second

// Open listens for HTTP, connects to the brokers, checks that the topics are
// there, and opens the store, in this order, so that nothing is written for a
// configuration that cannot work. Close the Relay in the end.
func Open(ctx context.Context, c Config) (*Relay, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if c.Scope == "" {
		c.Scope = c.DefaultScope()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Relay{config: c, store: io.NopCloser(nil), started: time.Now()}
	r.activity.base = r.started
	r.output = health{what: "the target", where: c.To.String(), logger: c.Logger}
	r.grave = health{what: "the topic of the dead letters", where: c.DeadLetter.String(), logger: c.Logger}
	r.registry, r.unwritten = newRegistry(c.Scope, c.Version)
	if err := r.open(ctx); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// defaultLease is that of dedup.Options.
const defaultLease = 30 * time.Second

func (r *Relay) open(ctx context.Context) error {
	c := &r.config
	var err error
	if c.Listen != "" {
		if r.server, err = r.serve(c.Listen); err != nil {
			return err
		}
	}
	for _, e := range []Endpoint{c.From, c.To, c.DeadLetter} {
		if e.Security.Mechanism == "PLAIN" && !e.Security.TLS {
			c.Logger.Warn("the password travels as it is; use kafka+tls:// or SCRAM", "to", e.String())
		}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if r.source, err = newSource(ctx, c.From, c.Logger); err != nil {
		return fmt.Errorf("source %v: %w", c.From, err)
	}
	if err := r.source.Check(ctx); err != nil {
		return fmt.Errorf("source %v: %w", c.From, err)
	}
	lease := c.Lease
	if lease == 0 {
		lease = defaultLease
	}
	redelivery := max(lease, r.source.redelivery())
	if r.sink, err = newSink(c.To, c.From.Topic, c.Scope, false, redelivery, c.Logger); err != nil {
		return fmt.Errorf("target %v: %w", c.To, err)
	}
	if err := r.registry.Register(r.source.metrics()); err != nil {
		return fmt.Errorf("source %v: %w", c.From, err)
	}
	measured, err := metrics.New(r.registry, c.Scope, &metrics.Options{TTL: c.TTL})
	if err != nil {
		return err
	}
	options := &dedup.Options{TTL: c.TTL, Lease: c.Lease, OnUnkeyed: c.OnUnkeyed, Logger: c.Logger, Hooks: measured.Hooks(r.hooks()), MaxResult: -1}
	if c.DeadLetter.Kind != "" {
		if r.letters, err = newSink(c.DeadLetter, c.From.Topic, c.Scope+" > dead letters", true, redelivery, c.Logger); err != nil {
			return fmt.Errorf("dead letters %v: %w", c.DeadLetter, err)
		}
		options.DeadLetter = r.bury
	}
	if err := r.sink.Check(ctx); err != nil {
		return fmt.Errorf("target %v: %w", c.To, err)
	}
	if r.letters != nil {
		if err := r.letters.Check(ctx); err != nil {
			return fmt.Errorf("dead letters %v: %w", c.DeadLetter, err)
		}
	}
	store, closer, err := c.Store.open(ctx, c.VouchFrom, c.Logger)
	if err != nil {
		return err
	}
	r.records, r.store = store, closer
	if inspector, ok := store.(driver.Inspector); ok {
		if err := metrics.RegisterStore(r.registry, c.Scope, inspector); err != nil {
			return err
		}
	}
	r.dedup, err = dedup.New(store, c.Scope, c.Key, options)
	return err
}

// Run relays until ctx ends, then drains what is under way and returns nil. Any
// other return is an error. A broker that goes away is waited for; a store that
// has failed for good ends Run.
func (r *Relay) Run(ctx context.Context) error {
	r.activity.enter(relaying)
	defer r.activity.enter(stopped)
	defer context.AfterFunc(ctx, r.activity.drain)()
	run, failed := context.WithCancelCause(ctx)
	defer failed(nil)
	r.failed = failed
	err := r.source.RunBatch(run, r.dedup, r.publish)
	if cause := context.Cause(run); ctx.Err() == nil && cause != nil {
		err = errors.Join(fmt.Errorf("the store %v failed: %w", r.config.Store, cause), err)
	}
	// What runs has drained, or has outlived its time: either way a short wait.
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, r.dedup.Shutdown(closing))
}

// Close releases the connections and the store. Call it after Run.
func (r *Relay) Close() error {
	var errs []error
	if r.server != nil { // first: it shows the others
		errs = append(errs, r.server.Close())
	}
	for _, c := range []io.Closer{r.source, r.sink, r.letters} {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(append(errs, r.store.Close())...)
}

// publish is the handler: a message is done when the target has confirmed it. A
// target that is down is no fault of the message, so that costs no attempt; a
// message that the target refuses for good is parked.
func (r *Relay) publish(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
	out := make([]*dedup.Message, len(ms))
	for i, m := range ms {
		out[i] = r.config.carry(r.config.To, m)
	}
	answers := make([]dedup.Answer, len(ms))
	errs := r.sink.Publish(ctx, out)
	r.activity.moved()
	wait := r.output.seen(errs)
	for i, err := range errs {
		if err != nil {
			answers[i].Err = dedup.RetryAfter(dedup.Transient(fmt.Errorf("publish to %s: %w", out[i].Topic, err)), wait)
		}
	}
	return answers
}

// bury is the Deduplicator's DeadLetter.
func (r *Relay) bury(ctx context.Context, m *dedup.Message, why error) error {
	return dedup.DeadLetters(func(ctx context.Context, ms []*dedup.Message) []error {
		errs := r.letters.Publish(ctx, ms)
		r.grave.seen(errs)
		return errs
	})(ctx, r.config.carry(r.config.DeadLetter, m), why)
}

// hooks follow each delivery.
func (r *Relay) hooks() dedup.Hooks {
	h := r.activity.hooks()
	moved := h.Decided
	h.Decided = func(e dedup.Event) {
		moved(e)
		r.decided(e)
	}
	return h
}

func (r *Relay) decided(e dedup.Event) {
	switch {
	case e.Result.Halt:
		r.halted.Add(1)
		if errors.Is(e.Result.Err, dedup.ErrStore) {
			r.failed(e.Result.Err)
		}
	case !e.Result.Settled():
		r.retried.Add(1)
	case e.Result.Outcome == dedup.Processed, e.Result.Outcome == dedup.Unkeyed && r.config.OnUnkeyed == dedup.PolicyProcess:
		r.relayed.Add(1)
		if e.Message.Claim.Ambiguous {
			r.ambiguous.Add(1)
		}
		if e.Message.Claim.Stale {
			r.stale.Add(1)
		}
	case e.Result.Outcome == dedup.Duplicate:
		r.duplicates.Add(1)
	case e.Result.Outcome == dedup.AlreadyParked:
		r.alreadyParked.Add(1)
	default:
		r.parked.Add(1)
	}
}

// Summary says what a Relay has done so far.
type Summary struct {
	Relayed       int64 // published, confirmed, and recorded if they have a key
	Ambiguous     int64 // of these, flagged so
	Stale         int64 // of these, flagged so
	Duplicates    int64 // dropped
	Parked        int64 // put into the dead letters
	AlreadyParked int64 // came under a key that was parked before: neither published nor put into the dead letters
	Halted        int64 // messages that stopped their partition
	Retried       int64 // tries that did not settle their message
	Took          time.Duration
}

// Summary returns the counts so far.
func (r *Relay) Summary() Summary {
	return Summary{
		Relayed: r.relayed.Load(), Ambiguous: r.ambiguous.Load(), Stale: r.stale.Load(), Duplicates: r.duplicates.Load(),
		Parked: r.parked.Load(), AlreadyParked: r.alreadyParked.Load(), Halted: r.halted.Load(), Retried: r.retried.Load(), Took: time.Since(r.started),
	}
}

func (s Summary) String() string {
	return fmt.Sprintf("relayed=%d ambiguous=%d stale=%d duplicates=%d parked=%d already_parked=%d halted=%d retried=%d took=%v",
		s.Relayed, s.Ambiguous, s.Stale, s.Duplicates, s.Parked, s.AlreadyParked, s.Halted, s.Retried, s.Took.Round(time.Millisecond))
}
