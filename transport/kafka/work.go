package kafkatransport

import (
	"context"
	"errors"
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// deduplicator is the part of *dedup.Deduplicator that a Consumer uses.
type deduplicator interface {
	Do(ctx context.Context, m *dedup.Message, h dedup.Handler) dedup.Result
	DoBatch(ctx context.Context, ms []*dedup.Message, h dedup.BatchHandler) []dedup.Result
}

// workers run the messages of one generation.
type workers interface {
	// start starts the goroutines; they end after the generation's quit is closed,
	// as soon as what they run returns.
	start(g *generation)
	// take takes over dispatched items of one partition, in the order of their
	// offsets. It does not block.
	take(items []item)
}

// errDraining is the answer for a message whose handler was about to start when
// the drain began: its claim is given back and the attempt does not count.
var errDraining = dedup.Transient(errors.New("the partition is being given up"))

// minRetry keeps a Deduplicator that asks for no delay from being asked in a
// tight loop.
const minRetry = 5 * time.Millisecond

// lanes run one message at a time each. Messages with equal keys share a lane.
type lanes struct {
	d      deduplicator
	h      dedup.Handler
	queues []*queue
	seed   maphash.Seed
	turn   atomic.Uint64 // gives the messages without a key a lane
}

func newLanes(n int, d deduplicator, h dedup.Handler) *lanes {
	l := &lanes{d: d, h: h, queues: make([]*queue, n), seed: maphash.MakeSeed()}
	for i := range l.queues {
		l.queues[i] = newQueue()
	}
	return l
}

func (l *lanes) take(items []item) {
	for _, it := range items {
		n := uint64(0)
		if key := it.message.Key; key != nil {
			n = maphash.Bytes(l.seed, key)
		} else {
			n = l.turn.Add(1)
		}
		l.queues[n%uint64(len(l.queues))].put(it)
	}
}

func (l *lanes) start(g *generation) {
	handler := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if g.draining() {
			return nil, errDraining
		}
		defer g.running()()
		return l.h(ctx, m)
	}
	for _, q := range l.queues {
		g.busy.Go(func() {
			var items []item
			for {
				if items = q.take(items, maxBatchSize, g.quit); items == nil {
					return
				}
				for i, it := range items {
					l.settle(g, it, handler)
					items[i] = item{} // an idle lane must not keep a fetch in memory
				}
			}
		})
	}
}

// settle tries the message until it is settled, its partition halts, or the
// generation drains.
func (l *lanes) settle(g *generation, it item, h dedup.Handler) {
	for !g.draining() && !it.partition.halted.Load() {
		g.calls.Add(1)
		r := l.d.Do(g.handlers, it.message, h)
		g.calls.Add(-1)
		g.progress.moved()
		switch {
		case r.Settled():
			it.partition.settle(it.seq)
			return
		case g.draining():
			return
		case r.Halt:
			g.haltAt(it, r)
			return
		}
		pause(g.quit, max(r.RetryAfter, minRetry))
	}
}

// batches run the messages of each partition in batches, one at a time.
type batches struct {
	d      deduplicator
	h      dedup.BatchHandler
	size   int
	queues map[*partition]*queue
}

func newBatches(size int, d deduplicator, h dedup.BatchHandler, ps []*partition) *batches {
	b := &batches{d: d, h: h, size: size, queues: make(map[*partition]*queue, len(ps))}
	for _, p := range ps {
		b.queues[p] = newQueue()
	}
	return b
}

func (b *batches) take(items []item) { b.queues[items[0].partition].put(items...) }

func (b *batches) start(g *generation) {
	handler := func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		if g.draining() {
			answers := make([]dedup.Answer, len(ms))
			for i := range answers {
				answers[i].Err = errDraining
			}
			return answers
		}
		defer g.running()()
		return b.h(ctx, ms)
	}
	for p, q := range b.queues {
		g.busy.Go(func() {
			var items []item
			for !p.halted.Load() {
				if items = q.take(items, b.size, g.quit); items == nil {
					return
				}
				b.settle(g, items, handler)
				clear(items[:cap(items)]) // an idle partition must not keep a fetch in memory
			}
		})
	}
}

// settle tries the items until all are settled, their partition halts, or the
// generation drains. What is tried again waits for the longest delay among it.
func (b *batches) settle(g *generation, items []item, h dedup.BatchHandler) {
	ms := make([]*dedup.Message, 0, len(items))
	for len(items) > 0 && !g.draining() {
		ms = ms[:0]
		for _, it := range items {
			ms = append(ms, it.message)
		}
		g.calls.Add(1)
		results := b.d.DoBatch(g.handlers, ms, h)
		g.calls.Add(-1)
		g.progress.moved()
		again, wait := items[:0], minRetry
		halt, why := item{}, dedup.Result{}
		for i, r := range results {
			it := items[i]
			if r.Settled() {
				it.partition.settle(it.seq)
				continue
			}
			if r.Halt && halt.partition == nil {
				halt, why = it, r
			}
			again, wait = append(again, it), max(wait, r.RetryAfter)
		}
		if halt.partition != nil && !g.draining() {
			g.haltAt(halt, why)
			return
		}
		if items = again; len(items) > 0 {
			pause(g.quit, wait)
		}
	}
}
