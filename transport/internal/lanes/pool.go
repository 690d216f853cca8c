package lanes

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// Core is a Deduplicator.
type Core struct {
	*dedup.Deduplicator
	dedup.Transport
}

// CoreOf returns d and its Transport.
func CoreOf(d *dedup.Deduplicator) Core { return Core{d, d.Transport()} }

// Deduplicator is the part of a dedup.Deduplicator and its Transport that a Pool uses.
type Deduplicator interface {
	DoBatch(ctx context.Context, ms []*dedup.Message, h dedup.BatchHandler) []dedup.Result
	DoEach(ctx context.Context, ms []*dedup.Message, h dedup.Handler) []dedup.Result
}

const (
	// most is how many messages one call of DoEach takes.
	most = 8
	// minRetry keeps a Deduplicator that asks for no delay from being asked in a
	// tight loop.
	minRetry = 5 * time.Millisecond
	// retryGrid brings messages that are tried again together into batches. Else each message
	// of a batch that failed would make a batch of its own, by the jitter of its delay.
	retryGrid = 20 * time.Millisecond
	// stuckAfter is after how long the other messages of a call of DoEach are taken
	// out of it. The Deduplicator itself gives them back after 10 ms.
	stuckAfter = 50 * time.Millisecond
	// overdueAfter is how long a batch may take before its Line begins another one
	// beside it.
	overdueAfter = 5 * time.Second
)

// errStopped is the answer for a message whose handler was about to start when its
// Line was stopped. Its claim is given back, and the attempt does not count.
var errStopped = dedup.Transient(errors.New("the partition is being given up"))

// Pool is the workers of one Run. They are goroutines that begin when there is
// something to do and end when there is nothing.
type Pool struct {
	kind  kind
	moved func() // is called after each call of the Deduplicator

	calls  atomic.Int64 // of the Deduplicator under way
	active atomic.Int64 // handlers that run

	mu      sync.Mutex
	queue   []*Line // those that may have something to do, in turn
	workers int
	limit   int       // how many messages the next call takes
	free    []*group  // for use again
	idle    []*worker // for use again
}

// worker is what one goroutine needs.
type worker struct {
	run  func(l *Line, items []*window.Flight)
	room []*window.Flight
}

// kind is how a Pool calls the Deduplicator.
type kind struct {
	workers int  // at once
	perLine int  // calls of one Line at once
	limit   int  // messages in a call
	several bool // messages of one key in a call
	begin   func(p *Pool) func(l *Line, items []*window.Flight)
}

// NewSingle makes a Pool that calls h through DoEach, with at most workers calls
// under way. moved is called after each.
func NewSingle(workers int, d Deduplicator, h dedup.Handler, moved func()) *Pool {
	return &Pool{limit: 1, moved: moved, kind: kind{workers: workers, perLine: math.MaxInt, limit: most, begin: func(p *Pool) func(*Line, []*window.Flight) {
		return newSingle(p, d, h).run
	}}}
}

// NewBatch makes a Pool that calls h through DoBatch, with at most size messages of
// one partition. moved is called after each call.
func NewBatch(size int, d Deduplicator, h dedup.BatchHandler, moved func()) *Pool {
	return &Pool{limit: size, moved: moved, kind: kind{workers: math.MaxInt, perLine: 1, limit: size, several: true, begin: func(p *Pool) func(*Line, []*window.Flight) {
		return newBatch(p, size, d, h).run
	}}}
}

// Line adds a Line for a partition. The handlers run under ctx.
func (p *Pool) Line(ctx context.Context, partition Partition) *Line {
	return &Line{pool: p, ctx: ctx, partition: partition, idle: make(chan struct{}), groups: make(map[uint64]*group)}
}

// Running returns how many handlers run, and how many other calls wait for the store.
func (p *Pool) Running() (handlers, others int64) {
	handlers = p.active.Load()
	return handlers, max(p.calls.Load()-handlers, 0)
}

// offer puts l into the queue if it is runnable, and sees to a worker. The caller
// holds mu.
func (p *Pool) offer(l *Line) {
	if !l.queued && l.runnable() {
		l.queued = true
		p.queue = append(p.queue, l)
	}
	if len(p.queue) > 0 && p.workers < p.kind.workers {
		p.workers++
		var w *worker
		if n := len(p.idle); n > 0 {
			w, p.idle = p.idle[n-1], p.idle[:n-1]
		} else {
			w = &worker{p.kind.begin(p), make([]*window.Flight, 0, p.kind.limit)}
		}
		go p.work(w)
	}
}

// work runs calls until there is nothing to do.
func (p *Pool) work(w *worker) {
	for {
		l, items := p.next(w)
		if l == nil {
			return
		}
		p.calls.Add(1)
		w.run(l, items)
		p.calls.Add(-1)
		p.moved()
		p.ended(l)
		clear(w.room[:cap(w.room)]) // an idle worker must not keep a fetch in memory
	}
}

// next returns messages to try, or no Line if there are none; then the worker ends.
func (p *Pool) next(w *worker) (*Line, []*window.Flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 {
		l := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		l.queued = false
		if !l.runnable() {
			continue
		}
		items := l.take(w.room[:0], p.limit)
		if len(items) == 0 {
			continue // all that was queued waits behind its key
		}
		l.calls++
		p.offer(l)
		return l, items
	}
	p.workers--
	p.idle = append(p.idle, w)
	return nil, nil
}

// ended notes that a call of l is over.
func (p *Pool) ended(l *Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.calls--
	l.rest()
	p.offer(l)
}

// conclude takes back what a call tried: with a result for each of items from the
// front, the others untold. Those of skip are not the call's any more.
func (p *Pool) conclude(l *Line, items []*window.Flight, results []dedup.Result, skip func(i int) bool, due func(dedup.Result) time.Time) {
	outcomes := make([]outcome, 0, most)
	type stop struct {
		offset int64
		result dedup.Result
	}
	var stops []stop
	for i, f := range items {
		o := outcome{flight: f, fate: untold}
		switch {
		case skip != nil && skip(i):
			continue
		case i >= len(results):
		case results[i].Settled():
			o.fate = done
			l.partition.Settled(f)
		case results[i].Halt:
			o.fate = done
			stops = append(stops, stop{f.Offset(), results[i]})
		default:
			o.fate, o.due = retry, due(results[i])
		}
		outcomes = append(outcomes, o)
	}
	if !l.stopped.Load() {
		for _, s := range stops {
			l.partition.Halt(s.offset, s.result)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l.finish(outcomes)
	p.offer(l)
}

// due returns when a message that is not settled is to be tried again.
func due(r dedup.Result) time.Time { return time.Now().Add(max(r.RetryAfter, minRetry)) }

// dueOnGrid is due, rounded up so that messages become due together.
func dueOnGrid(r dedup.Result) time.Time { return due(r).Truncate(retryGrid).Add(retryGrid) }

func (p *Pool) newGroup() *group {
	if n := len(p.free); n > 0 {
		g := p.free[n-1]
		p.free = p.free[:n-1]
		return g
	}
	return &group{}
}

// oldGroup keeps an empty group for use again.
func (p *Pool) oldGroup(g *group) {
	if len(p.free) < 1024 && cap(g.items) <= 16 {
		*g = group{items: g.items[:0]}
		p.free = append(p.free, g)
	}
}
