package dedup

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/combine"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// asker is the one place where the store is asked.
type asker struct {
	store    driver.Store
	ctx      context.Context // ends at the deadline of Shutdown
	teller   *teller
	combiner combine.Combiner
	floor    atomic.Uint64 // highest Token seen
	down     atomic.Bool   // the store did not answer last time
	buffers  sync.Pool     // of *[]Op
}

func (d *asker) init(ctx context.Context, store driver.Store, t *teller) {
	d.store, d.ctx, d.teller = store, ctx, t
	d.buffers.New = func() any { return new([]driver.Op) }
	var recycle func([]driver.Reply) // nil: the store has no use for its own
	if r, ok := store.(driver.Recycler); ok {
		recycle = func(replies []driver.Reply) {
			defer d.teller.survive("the store")
			r.Recycle(replies)
		}
	}
	limit := 1
	if p, ok := store.(driver.Pipelined); ok {
		limit = max(p.Applies(), 1)
	}
	d.combiner.Init(ctx, limit, d.apply, recycle)
}

// giveBack gives a buffer back, which ops has outgrown, perhaps. Nobody may use it
// any more.
func (d *asker) giveBack(buffer *[]driver.Op, ops []driver.Op) {
	clear(ops) // results are the callers'
	*buffer = ops[:0]
	d.buffers.Put(buffer)
}

// ask sends claims, and those whose state is unknown again, for a short while:
// the nonce makes that safe, and a claim whose reply was lost would block its
// key for a whole lease.
func (d *asker) ask(ctx context.Context, ops []driver.Op) (combine.Answers, error) {
	first, err := d.combiner.Do(ctx, ops)
	if err != nil {
		return combine.Answers{}, err
	}
	for _, wait := range []time.Duration{10 * time.Millisecond, 50 * time.Millisecond, 200 * time.Millisecond} {
		failed := unanswered(first.Replies)
		if len(failed) == 0 || sleep(ctx, wait) != nil {
			break
		}
		again, err := d.combiner.Do(ctx, pick(ops, failed))
		if err != nil {
			break // the first replies stand: unknown
		}
		for i, at := range failed {
			first.Replies[at] = again.Replies[i]
		}
		again.Done()
	}
	return first, nil
}

func unanswered(replies []driver.Reply) (at []int) {
	for i := range replies {
		if replies[i].Err != nil {
			at = append(at, i)
		}
	}
	return at
}

func pick[T any](all []T, at []int) []T {
	out := make([]T, len(at))
	for i, j := range at {
		out[i] = all[j]
	}
	return out
}

// send carries out as many of ops, from the front, as fit in a batch.
func (d *asker) send(ops []driver.Op) combine.Answers {
	n := 1
	for bytes := combine.Size(&ops[0]); n < len(ops); n++ {
		if bytes += combine.Size(&ops[n]); bytes > combine.MaxBytes {
			break
		}
	}
	sent, err := d.combiner.Do(d.ctx, ops[:n])
	if err != nil {
		return combine.Answers{Replies: failed(n, err)}
	}
	return sent
}

// extend carries out the operations of the renewer, which wait for no others.
func (d *asker) extend(ops []driver.Op) []driver.Reply {
	var a combine.Applied
	d.apply(ops, &a)
	return a.Replies
}

// apply calls the store. a then has a Reply for every op, whatever the store did.
func (d *asker) apply(ops []driver.Op, a *combine.Applied) {
	a.At = time.Now()
	replies, err := d.applyOnce(ops)
	a.Took = time.Since(a.At)
	if a.Own = err == nil; !a.Own {
		replies = failed(len(ops), err)
	}
	a.Replies = replies
	answered, refused := false, 0
	for i := range replies {
		r := &replies[i]
		if r.Err != nil {
			err = mark.Finite(r.Err)
			refused++
			r.Err = fmt.Errorf("%w: %w", ErrStore, err)
			continue
		}
		answered = true
		d.saw(r.Record.Token)
	}
	if answered {
		if refused > 0 {
			d.teller.storeRefused(refused, err)
		}
		err = nil
	}
	d.teller.applied(len(ops), a.Took, err)
	if down := !answered; d.ctx.Err() == nil && d.down.Load() != down && d.teller.notes.storeDue() {
		d.down.Store(down)
		d.teller.storeChanged(down, err)
	}
}

func (d *asker) applyOnce(ops []driver.Op) (replies []driver.Reply, err error) {
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

// failed returns n replies with err.
func failed(n int, err error) []driver.Reply {
	replies := make([]driver.Reply, n)
	for i := range replies {
		replies[i].Err = err
	}
	return replies
}

// saw raises the floor of the tokens to come.
func (d *asker) saw(t Token) {
	for {
		old := d.floor.Load()
		if old >= uint64(t) || d.floor.CompareAndSwap(old, uint64(t)) {
			return
		}
	}
}

func (d *asker) vouch() (v driver.Vouch, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %w", ErrStore, panicError(r))
		}
	}()
	if v, err = d.store.Vouch(d.ctx); err != nil {
		err = fmt.Errorf("%w: %w", ErrStore, err)
	}
	return v, err
}
