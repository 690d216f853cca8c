package dedup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Handler processes one message and returns the result to record, which may be nil.
// It runs in the goroutine that called Do. It must return soon after ctx ends.
//
// An error means that the message has to run again, after Options.Backoff. The marks
// [Permanent], [RetryAfter], [Transient] and [MaybeDone] tell more than a bare error.
//
// A panic becomes an error that matches [ErrPanic]. A panic counts as MaybeDone, and so
// does any error that the handler returns after its context has ended.
type Handler func(ctx context.Context, m *Message) (result []byte, err error)

// Answer is what a [BatchHandler] returns for one message.
type Answer struct {
	Result []byte // to record; may be nil
	Err    error  // as a Handler returns it; then Result is ignored
}

// BatchHandler processes several messages in one call. Those that have a key have
// different keys. They come in the order of delivery, and BatchHandler returns one
// Answer for each, in the same order. With any other number of answers, every message
// of the call fails as MaybeDone.
//
// ctx ends when the lease of any one of the messages is lost.
type BatchHandler func(ctx context.Context, ms []*Message) []Answer

// Deduplicator runs handlers so that each key is processed once. [New] makes one. Its
// methods may be called by many goroutines at once. Call [Deduplicator.Shutdown] before
// you close its store.
type Deduplicator struct {
	store  Store
	scope  string
	ids    ids
	key    KeyFunc
	o      Options
	floor  atomic.Uint64 // highest Token seen
	notes  notes
	down   atomic.Bool // the store did not answer last time
	ctx    context.Context
	cancel context.CancelCauseFunc // at the deadline of Shutdown

	admission admission
	combiner  combiner
	renewer   renewer
	flights   flights

	opBuffers sync.Pool // of *[]Op
	slabs     sync.Pool // of *[]delivery, all zero
	ones      sync.Pool // of *doing, zero

	closing chan struct{} // closed by Shutdown
	mu      sync.Mutex
	closed  bool
	running int           // calls under way
	idle    chan struct{} // closed when closed and nothing is running
}

// New returns a Deduplicator that keeps its records in store.
//
// scope separates the keys of consumers that do different work for the same message.
// Two consumers that share a store and a scope process each key once between them.
// scope must not be empty.
//
// o may be nil: every option then has its default. New returns an error if an argument
// is missing or an option makes no sense. It does not ask the store anything.
func New(store Store, scope string, key KeyFunc, o *Options) (*Deduplicator, error) {
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
	d := &Deduplicator{
		store: store,
		scope: scope,
		ids:   newIDs(scope),
		key:   key,
		o:     filled,
		notes: notes{logger: filled.Logger.With("scope", scope), kinds: make(map[string]*kind)},

		closing: make(chan struct{}),
		idle:    make(chan struct{}),
	}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	d.opBuffers.New = func() any { return new([]Op) }
	d.ones.New = func() any { return new(doing) }
	d.flights.init()
	d.admission.slots = filled.Concurrency
	d.combiner.init(d.ctx, d.apply, store)
	if r, ok := store.(Recycler); ok {
		d.combiner.recycle = func(replies []Reply) {
			defer d.survive("the store")
			r.Recycle(replies)
		}
	}
	d.renewer.init(func(ops []Op) []Reply {
		var a applied
		d.apply(ops, &a)
		return a.replies
	}, filled.Lease, filled.TTL)
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
// is not recognised.
func (d *Deduplicator) Shutdown(ctx context.Context) error {
	r, hook := d.enclosing(ctx), inHook()
	d.mu.Lock()
	if hook || r != nil && !r.call.over {
		d.mu.Unlock()
		return fmt.Errorf("dedup: Shutdown: %w", ErrInHandler)
	}
	if !d.closed {
		d.closed = true
		close(d.closing)
		if d.running == 0 {
			close(d.idle)
		}
	}
	d.mu.Unlock()
	var err error
	select {
	case <-d.idle:
	case <-ctx.Done():
		d.mu.Lock()
		running := d.running
		d.mu.Unlock()
		if running > 0 {
			err = fmt.Errorf("dedup: shut down with %d calls still running: %w", running, ctx.Err())
		}
	}
	d.cancel(ErrClosed)
	d.renewer.stop(ctx)
	return err
}

// enter counts a call in, unless the Deduplicator is shut down.
func (d *Deduplicator) enter(ctx context.Context, c *call) bool {
	c.d, c.received, c.parent = d, time.Now(), d.enclosing(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.running++
	return true
}

func (d *Deduplicator) exit(c *call) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c.over = true
	d.running--
	if d.closed && d.running == 0 {
		close(d.idle)
	}
}

// giveBack gives a buffer back, which ops has outgrown, perhaps. Nobody may use it
// any more.
func (d *Deduplicator) giveBack(buffer *[]Op, ops []Op) {
	clear(ops) // results are the callers'
	*buffer = ops[:0]
	d.opBuffers.Put(buffer)
}

// apply is the one place where the store is asked. a then has a Reply for every op,
// whatever the store did.
func (d *Deduplicator) apply(ops []Op, a *applied) {
	a.at = time.Now()
	replies, err := d.applyOnce(ops)
	a.took = time.Since(a.at)
	if a.own = err == nil; !a.own {
		replies = failed(len(ops), err)
	}
	a.replies = replies
	answered, refused := false, 0
	for i := range replies {
		r := &replies[i]
		if r.Err != nil {
			err = finite(r.Err)
			refused++
			r.Err = fmt.Errorf("%w: %w", ErrStore, err)
			continue
		}
		answered = true
		d.saw(r.Record.Token)
	}
	if answered {
		if refused > 0 {
			d.storeRefused(refused, err)
		}
		err = nil
	}
	if d.o.Hooks.Applied != nil {
		d.applied(len(ops), a.took, err)
	}
	if down := !answered; d.ctx.Err() == nil && d.down.Load() != down && d.notes.storeDue() {
		d.down.Store(down)
		d.storeChanged(down, err)
	}
}

func (d *Deduplicator) storeRefused(ops int, err error) {
	defer d.survive("the logger")
	d.notes.storeRefused(ops, err)
}

func (d *Deduplicator) storeChanged(down bool, err error) {
	defer d.survive("the logger")
	d.notes.storeChanged(down, err)
}

// failed returns n replies with err.
func failed(n int, err error) []Reply {
	replies := make([]Reply, n)
	for i := range replies {
		replies[i].Err = err
	}
	return replies
}

func (d *Deduplicator) applyOnce(ops []Op) (replies []Reply, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError(r)
		}
	}()
	replies, err = d.store.Apply(d.ctx, ops)
	if err == nil && len(replies) != len(ops) {
		err = fmt.Errorf("%d replies to %d operations", len(replies), len(ops))
	}
	return replies, err
}

func (d *Deduplicator) applied(ops int, took time.Duration, err error) {
	d.callHook("the hook Applied", func() { d.o.Hooks.Applied(ops, took, err) })
}

// saw raises the floor of the tokens to come.
func (d *Deduplicator) saw(t Token) {
	for {
		old := d.floor.Load()
		if old >= uint64(t) || d.floor.CompareAndSwap(old, uint64(t)) {
			return
		}
	}
}
