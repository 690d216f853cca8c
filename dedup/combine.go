package dedup

import (
	"context"
	"slices"
	"sync"
)

// maxBatchBytes bounds the results that one Apply carries.
const maxBatchBytes = 1 << 20

// combiner is the group commit. Callers queue their operations; whoever finds
// no Apply under way carries out everything that is queued, in one batch, and
// hands the lead to the next in the queue. There is no timer, hence no latency
// when idle, and no goroutine of its own.
type combiner struct {
	ctx   context.Context
	apply func([]Op) []Reply
	limit int // Applies under way at once

	mu      sync.Mutex
	leading int
	queue   []*group
	spare   [][]Op // buffers of finished batches
}

// group is the operations of one caller. They travel in one batch.
type group struct {
	ops     []Op
	bytes   int
	replies []Reply
	state   groupState
	wake    chan struct{} // nil: nobody waits
}

type groupState uint8

const (
	groupQueued    groupState = iota
	groupLeads                // its caller is to carry out the queue
	groupSent                 // in an Apply
	groupAbandoned            // in an Apply, and its caller is gone
	groupAnswered
)

func (c *combiner) init(ctx context.Context, apply func([]Op) []Reply, store Store) {
	c.ctx, c.apply, c.limit = ctx, apply, 1
	if p, ok := store.(Pipelined); ok {
		c.limit = max(p.Applies(), 1)
	}
}

// do carries out ops, at most MaxBatch of them, and returns a reply for each.
// When ctx ends first it returns the cause: then the ops were not sent, or a
// claim that is granted all the same is released, uncounted.
func (c *combiner) do(ctx context.Context, ops []Op) ([]Reply, error) {
	g := &group{ops: ops, bytes: size(ops), wake: make(chan struct{}, 1)}
	c.mu.Lock()
	c.queue = append(c.queue, g)
	if c.leading < c.limit {
		c.leading++
		g.state = groupLeads
	} else {
		c.mu.Unlock()
		select {
		case <-g.wake:
		case <-ctx.Done():
		}
		c.mu.Lock()
	}
	switch g.state {
	case groupLeads:
		c.lead(g)
		c.mu.Unlock()
		return g.replies, nil
	case groupQueued:
		i := slices.Index(c.queue, g)
		c.queue = slices.Delete(c.queue, i, i+1)
	case groupSent:
		g.state = groupAbandoned
	case groupAnswered:
		c.mu.Unlock()
		return g.replies, nil
	}
	c.mu.Unlock()
	return nil, context.Cause(ctx)
}

// lead carries out g and what fits beside it, and then hands the lead to the
// next in the queue. Only groups that nobody waits for it carries out itself.
// The caller holds the lock; it is released during Apply.
func (c *combiner) lead(g *group) {
	for {
		batch, ops := c.take(g)
		c.mu.Unlock()
		replies := c.apply(ops)
		c.mu.Lock()
		c.answer(batch, replies)
		if len(batch) > 1 {
			clear(ops)
			c.spare = append(c.spare, ops[:0])
		}
		i := slices.IndexFunc(c.queue, func(g *group) bool { return g.state == groupQueued })
		if i < 0 {
			c.leading--
			return
		}
		g = c.queue[i]
		if g.wake != nil {
			g.state = groupLeads
			g.wake <- struct{}{}
			return
		}
	}
}

// take removes g from the queue, and as many of the other groups as fit into
// one batch with it.
func (c *combiner) take(g *group) ([]*group, []Op) {
	batch, count, bytes := []*group{g}, len(g.ops), g.bytes
	g.state = groupSent
	full := false
	c.queue = slices.DeleteFunc(c.queue, func(q *group) bool {
		if q == g {
			return true
		}
		full = full || count+len(q.ops) > MaxBatch || bytes+q.bytes > maxBatchBytes
		if full || q.state != groupQueued {
			return false
		}
		count, bytes = count+len(q.ops), bytes+q.bytes
		q.state = groupSent
		batch = append(batch, q)
		return true
	})
	if len(batch) == 1 {
		return batch, g.ops
	}
	var ops []Op
	if last := len(c.spare) - 1; last >= 0 {
		ops, c.spare = c.spare[last], c.spare[:last]
	}
	for _, q := range batch {
		ops = append(ops, q.ops...)
	}
	return batch, ops
}

// answer gives each group of a batch its replies. The claims that were granted
// to a caller who has gone are given back at once.
func (c *combiner) answer(batch []*group, replies []Reply) {
	for _, g := range batch {
		g.replies, replies = replies[:len(g.ops):len(g.ops)], replies[len(g.ops):]
		if g.state == groupAbandoned {
			c.giveBack(g)
		}
		g.state = groupAnswered
		select {
		case g.wake <- struct{}{}:
		default: // nobody waits, or it was woken to lead
		}
	}
}

func (c *combiner) giveBack(g *group) {
	var ops []Op
	for i, r := range g.replies {
		if op := g.ops[i]; op.Kind == OpClaim && r.Err == nil && r.Status == StatusGranted {
			ops = append(ops, Op{Kind: OpRelease, ID: op.ID, Token: r.Record.Token, TTL: op.TTL, Uncounted: true})
		}
	}
	if len(ops) > 0 && c.ctx.Err() == nil {
		c.queue = append(c.queue, &group{ops: ops})
	}
}

func size(ops []Op) int {
	n := 0
	for i := range ops {
		n += len(ops[i].Result)
	}
	return n
}
