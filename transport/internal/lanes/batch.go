package lanes

import (
	"context"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// batch calls a handler for many messages of a partition at once.
type batch struct {
	pool *Pool
	d    Deduplicator
	h    dedup.BatchHandler
	line *Line
	ms   []*dedup.Message
}

func newBatch(p *Pool, size int, d Deduplicator, h dedup.BatchHandler) *batch {
	return &batch{pool: p, d: d, h: h, ms: make([]*dedup.Message, 0, size)}
}

func (b *batch) run(l *Line, items []*window.Flight) {
	b.line = l
	for _, f := range items {
		b.ms = append(b.ms, f.Message)
	}
	ended, extra := false, 0
	alarm := time.AfterFunc(overdueAfter, func() {
		b.pool.mu.Lock()
		defer b.pool.mu.Unlock()
		if !ended {
			extra = 1
			l.extra++
			b.pool.offer(l)
		}
	})
	results := b.d.DoBatch(l.ctx, b.ms, b.handle)
	alarm.Stop()
	b.pool.conclude(l, items, results, nil, dueOnGrid)
	b.pool.mu.Lock()
	ended = true
	l.extra -= extra
	b.pool.mu.Unlock()
	clear(b.ms)
	b.ms = b.ms[:0]
}

func (b *batch) handle(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
	if b.line.stopped.Load() {
		answers := make([]dedup.Answer, len(ms))
		for i := range answers {
			answers[i].Err = errStopped
		}
		return answers
	}
	b.pool.active.Add(1)
	defer b.pool.active.Add(-1)
	return b.h(ctx, ms)
}
