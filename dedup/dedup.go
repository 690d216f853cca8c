package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/admit"
	"github.com/oncequeue/oncequeue/dedup/internal/renew"
)

// Deduplicator runs handlers so that each key is processed once. [New] makes one. Its
// methods may be called by many goroutines at once. Call [Deduplicator.Shutdown] before
// you close its store.
type Deduplicator struct {
	o      Options
	ctx    context.Context
	cancel context.CancelCauseFunc // at the deadline of Shutdown
	calls  calls

	// The steps, in the order of process.go, and what several of them use.
	identifier identifier
	flights    flights
	admission  admit.Admission
	asker      asker
	claimer    claimer
	renewer    renew.Renewer
	runner     runner
	recorder   recorder
	teller     teller

	memory memory
}

// New returns a Deduplicator that keeps its records in store.
//
// scope separates the keys of consumers that do different work for the same message.
// Two consumers that share a store and a scope process each key once between them.
// scope must not be empty.
//
// o may be nil: every option then has its default. New returns an error if an argument
// is missing or an option makes no sense. It does not ask the store anything.
func New(store driver.Store, scope string, key KeyFunc, o *Options) (*Deduplicator, error) {
	var wrong []error
	if store == nil {
		wrong = append(wrong, errors.New("dedup: New needs a store"))
	}
	if scope == "" {
		wrong = append(wrong, errors.New("dedup: New needs a scope: a name for the work that is done once for each key"))
	}
	if key == nil {
		wrong = append(wrong, errors.New("dedup: New needs a KeyFunc, such as HeaderKey()"))
	}
	filled, err := o.filled()
	if err = errors.Join(append(wrong, err)...); err != nil {
		return nil, err
	}
	d := &Deduplicator{o: filled}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.calls.init()
	d.teller = teller{scope: scope, hooks: filled.Hooks, logger: filled.Logger, notes: notes{logger: filled.Logger.With("scope", scope), kinds: make(map[string]*kind)}}
	d.asker.init(d.ctx, store, &d.teller)
	d.renewer.Init(d.asker.extend, filled.Lease, filled.TTL)
	d.identifier = identifier{o: &d.o, key: key, ids: newIDs(scope)}
	d.flights.init(filled.OnConflict)
	d.admission.Slots = filled.Concurrency
	d.claimer = claimer{o: &d.o, asker: &d.asker, flights: &d.flights, teller: &d.teller}
	d.recorder = recorder{o: &d.o, asker: &d.asker, renewer: &d.renewer, teller: &d.teller}
	d.runner = runner{
		o: &d.o, closing: d.calls.closing, admission: &d.admission, renewer: &d.renewer, flights: &d.flights,
		concluder: concluder{o: &d.o, ctx: d.ctx}, recorder: &d.recorder, teller: &d.teller,
	}
	d.runner.onLost = d.runner.lost
	d.memory.init()
	return d, nil
}

// Shutdown drains the Deduplicator. From now on, new calls are refused: their Outcome is
// [Unavailable] and their error matches [ErrClosed]. Calls whose handler has not started
// end at once. Shutdown waits until the running handlers have returned and their results
// are recorded.
//
// If ctx ends first, Shutdown returns an error that matches ctx.Err(). It cancels the
// contexts of the handlers that still run, with the cause ErrClosed, and does not wait
// for them. Results that the store did not take until then are given up. The claims of
// both lapse, and their messages come again flagged Ambiguous.
//
// Shutdown does not close the store. It may be called again, and then waits again.
//
// Inside a handler or a DeadLetter function of this Deduplicator, which Shutdown knows by
// ctx, and inside a hook of any Deduplicator, it would wait for itself. There it does
// nothing and returns [ErrInHandler]. A handler that passes on another context than its own
// is not recognised, and neither is a call inside a key function, Fingerprint, Backoff or
// Logger: do not call Shutdown there.
func (d *Deduplicator) Shutdown(ctx context.Context) error {
	if !d.calls.close(ctx) {
		return fmt.Errorf("dedup: Shutdown: %w", ErrInHandler)
	}
	err := d.calls.drain(ctx)
	d.cancel(ErrClosed)
	d.renewer.Stop(ctx)
	return err
}
