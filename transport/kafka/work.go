package kafkatransport

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// deduplicator is the part of a dedup.Deduplicator and its Transport that a Consumer uses.
type deduplicator interface {
	DoBatch(ctx context.Context, ms []*dedup.Message, h dedup.BatchHandler) []dedup.Result
	DoEach(ctx context.Context, ms []*dedup.Message, h dedup.Handler) []dedup.Result
	Vouch() (driver.Vouch, error)
}

// core is a deduplicator.
type core struct {
	*dedup.Deduplicator
	dedup.Transport
}

func coreOf(d *dedup.Deduplicator) core { return core{d, d.Transport()} }

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

// work hands the items of l to try, at most limit at once, which returns those to
// be tried again, in their order.
func (g *generation) work(l *line, limit int, try func(items []item) []retry) {
	g.busy.Go(func() {
		var items []item
		for {
			if items = l.take(items, limit, g.quit); items == nil {
				return
			}
			l.hold(try(items))
			clear(items) // an idle worker must not keep a fetch in memory
		}
	})
}

// settled notes that an item needs nothing more.
func (g *generation) settled(it item) {
	it.partition.settle(it.seq)
	if g.over.Load() {
		g.counters.late.Add(1)
	}
}

func due(r dedup.Result) time.Time { return time.Now().Add(max(r.RetryAfter, minRetry)) }

// retryGrid brings what is tried again together into batches: else each message
// of a batch that failed would make one of its own, by the jitter of its delay.
const retryGrid = 20 * time.Millisecond

// laneTurn is how many items a lane takes at once: as many as DoEach takes.
const laneTurn = 8

// lanes call one handler at a time each. Messages with equal keys share a lane.
type lanes struct {
	d     deduplicator
	h     dedup.Handler
	lines []*line
	seed  maphash.Seed
	turn  atomic.Uint64 // gives the messages without a key a lane
}

func newLanes(n int, d deduplicator, h dedup.Handler) *lanes {
	l := &lanes{d: d, h: h, lines: make([]*line, n), seed: maphash.MakeSeed()}
	for i := range l.lines {
		l.lines[i] = newLine()
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
		l.lines[n%uint64(len(l.lines))].put(it)
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
	for _, line := range l.lines {
		ms := make([]*dedup.Message, 0, laneTurn)
		g.work(line, laneTurn, func(items []item) []retry {
			defer clear(ms[:cap(ms)])
			return l.try(g, items, ms, handler)
		})
	}
}

// try tries the items one after the other. What follows an item of its key that
// is not settled is not tried. ms is room for their messages.
func (l *lanes) try(g *generation, items []item, ms []*dedup.Message, h dedup.Handler) (again []retry) {
	for len(items) > 0 {
		if g.draining() {
			return nil
		}
		it := items[0]
		switch {
		case it.partition.halted.Load():
			items = items[1:]
			continue
		case waits(again, it):
			again, items = append(again, retry{item: it}), items[1:]
			continue
		}
		ms = append(ms[:0], it.message)
		for i, it := range items[1:] {
			if it.partition.halted.Load() || waits(again, it) || slices.ContainsFunc(items[:i+1], it.sameKey) {
				break
			}
			ms = append(ms, it.message)
		}
		g.calls.Add(1)
		results := l.d.DoEach(g.handlers, ms, h)
		g.calls.Add(-1)
		g.progress.moved()
		for i, r := range results {
			switch it := items[i]; {
			case r.Settled():
				g.settled(it)
			case g.draining():
			case r.Halt:
				g.haltAt(it, r)
			default:
				again = append(again, retry{it, due(r)})
			}
		}
		items = items[len(results):]
	}
	return again
}

// waits says whether it must not be tried before one of those that are tried again.
func waits(again []retry, it item) bool {
	return slices.ContainsFunc(again, func(r retry) bool { return r.sameKey(it) })
}

// batches run the messages of each partition in batches, one at a time.
type batches struct {
	d     deduplicator
	h     dedup.BatchHandler
	size  int
	lines map[*partition]*line
}

func newBatches(size int, d deduplicator, h dedup.BatchHandler, ps []*partition) *batches {
	b := &batches{d: d, h: h, size: size, lines: make(map[*partition]*line, len(ps))}
	for _, p := range ps {
		b.lines[p] = newLine()
	}
	return b
}

func (b *batches) take(items []item) { b.lines[items[0].partition].put(items...) }

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
	for _, line := range b.lines {
		ms := make([]*dedup.Message, 0, b.size)
		g.work(line, b.size, func(items []item) []retry {
			defer clear(ms[:cap(ms)])
			return b.try(g, items, ms, handler)
		})
	}
}

// try tries the items, which are of one partition, in one batch. ms is room for
// their messages.
func (b *batches) try(g *generation, items []item, ms []*dedup.Message, h dedup.BatchHandler) (again []retry) {
	if items[0].partition.halted.Load() {
		return nil
	}
	for _, it := range items {
		ms = append(ms, it.message)
	}
	g.calls.Add(1)
	results := b.d.DoBatch(g.handlers, ms, h)
	g.calls.Add(-1)
	g.progress.moved()
	for i, r := range results {
		switch {
		case r.Settled():
			g.settled(items[i])
		case r.Halt && !g.draining():
			g.haltAt(items[i], r)
		default:
			again = append(again, retry{items[i], due(r).Truncate(retryGrid).Add(retryGrid)})
		}
	}
	return again
}
