package dedup

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// maxBatchBytes bounds the room that the ops of one Apply take in a store, as far as
// they come from several callers or in several groups.
const maxBatchBytes = 1 << 20

// combiner is the group commit. Callers queue their operations; whoever finds
// no Apply under way carries out everything that is queued, in one batch, and
// hands the lead to the next in the queue. See gather for whom it waits. A caller
// that is alone waits for nobody, and there is no goroutine of its own.
type combiner struct {
	ctx     context.Context
	apply   func([]driver.Op, *applied) // never panics, and answers every op
	recycle func([]driver.Reply)        // nil: the store has no use for its own
	limit   int                         // Applies under way at once

	mu      sync.Mutex
	leading int
	queue   []*group
	spare   [][]driver.Op // buffers of finished batches
	round   round

	groups  sync.Pool // of *group that nobody refers to
	applied sync.Pool // of *applied that nobody refers to
}

// round is what the combiner knows of the last Apply, to judge whether it is worth
// waiting for who took part in it. It is used when one Apply is under way at once.
type round struct {
	peers  int           // groups that were carried out, or queued meanwhile
	took   time.Duration // moving average
	missed int           // rounds in a row for which too few peers came
	skip   int           // rounds to go before it is tried again
	all    chan struct{} // closed when all peers are there; nil: nobody waits for them
}

const (
	minGather = 20 * time.Microsecond // timers are no finer
	maxGather = 2 * time.Millisecond
	maxSkip   = 64
	manyOps   = 512
)

// group is the operations of one caller. They travel in one batch.
type group struct {
	ops     []driver.Op
	bytes   int
	answers answers
	state   groupState
	batch   []*group      // room for the batch that its caller leads
	waits   bool          // its caller does, for one wake: to lead, or that it is answered
	wake    chan struct{} // with room for one; nil: there is no caller
}

// answers are the replies to one group, a part of those of an Apply. Who has read
// them calls done.
type answers struct {
	replies []driver.Reply
	of      *applied
}

// applied is what an Apply returned, and how many have not read it yet.
type applied struct {
	c       *combiner
	at      time.Time // when it was called: the replies are no older
	took    time.Duration
	replies []driver.Reply
	readers atomic.Int32
	own     bool // the replies are the store's
}

// done says that the answers are of no more use.
func (a answers) done() { a.of.done() }

func (a *applied) done() {
	if a.readers.Add(-1) != 0 {
		return
	}
	if a.own && a.c.recycle != nil {
		a.c.recycle(a.replies)
	}
	a.replies = nil
	a.c.applied.Put(a)
}

type groupState uint8

const (
	groupQueued    groupState = iota
	groupCancelled            // queued, and its caller is gone
	groupLeads                // its caller is to carry out the queue
	groupSent                 // in an Apply
	groupAbandoned            // in an Apply, and its caller is gone
	groupAnswered
)

func (c *combiner) init(ctx context.Context, apply func([]driver.Op, *applied), store driver.Store) {
	c.ctx, c.apply, c.limit = ctx, apply, 1
	c.applied.New = func() any { return &applied{c: c} }
	c.groups.New = func() any { return &group{wake: make(chan struct{}, 1)} }
	if p, ok := store.(driver.Pipelined); ok {
		c.limit = max(p.Applies(), 1)
	}
}

// do carries out ops, at most MaxBatch of them, and returns a reply for each.
// When ctx ends first it returns the cause: then the ops were not sent, or a
// claim that is granted all the same is released, uncounted. A caller that leads
// waits for its Apply, whatever ctx says.
func (c *combiner) do(ctx context.Context, ops []driver.Op) (answers, error) {
	g := c.groups.Get().(*group)
	g.ops, g.bytes = ops, size(ops)
	c.mu.Lock()
	if c.leading < c.limit {
		c.leading++
		c.lead(g)
		return c.result(g), nil
	}
	g.waits = true
	c.queue = append(c.queue, g)
	if c.round.all != nil && len(c.queue)+1 >= c.round.peers {
		close(c.round.all)
		c.round.all = nil
	}
	c.mu.Unlock()
	select {
	case <-g.wake:
	case <-ctx.Done():
		if c.leave(g) {
			return answers{}, context.Cause(ctx)
		}
		<-g.wake
	}
	if g.state == groupLeads { // who is woken reads it without the lock: many are, at one time
		c.mu.Lock()
		c.lead(g)
	}
	return c.result(g), nil
}

// leave reports whether the caller of g may go. Else its wake is on the way.
func (c *combiner) leave(g *group) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch g.state {
	case groupQueued:
		g.state = groupCancelled
	case groupSent:
		g.state = groupAbandoned
	default:
		return false
	}
	g.waits = false
	return true
}

// result returns the answers to g, and gives g back.
func (c *combiner) result(g *group) answers {
	a := g.answers
	*g = group{wake: g.wake, batch: g.batch}
	c.groups.Put(g)
	return a
}

// lead carries out g and what fits beside it, and then hands the lead to the
// next in the queue. Only groups that nobody waits for it carries out itself.
// The caller holds the lock; it is released during Apply, and at the end.
func (c *combiner) lead(g *group) {
	for {
		c.gather(g)
		batch, ops := c.take(g)
		left := len(c.queue)
		c.mu.Unlock()
		a := c.applied.Get().(*applied)
		c.apply(ops, a)
		c.mu.Lock()
		c.ended(len(batch), left, a.took)
		a.readers.Store(int32(len(batch)) + 1)
		c.answer(batch, a)
		if len(batch) > 1 {
			clear(ops)
			c.spare = append(c.spare, ops[:0])
		}
		next := c.next()
		switch {
		case next == nil:
			c.leading--
		case next.waits:
			next.state, next.waits = groupLeads, false
			next.wake <- struct{}{}
			next = nil
		}
		c.mu.Unlock()
		for _, g := range batch { // without the lock, which they want next
			if g.waits {
				g.wake <- struct{}{}
			}
		}
		a.done() // without the lock, too
		clear(batch)
		g.batch = batch[:0]
		if next == nil {
			return
		}
		g = next
		c.mu.Lock()
	}
}

// gather waits, at most for the time that an Apply takes, until those are there
// again who took part in the last one: what they did with its answers is often
// done by now, or in a moment, and a batch costs the store little more than one
// operation. So the completes of one batch and the claims of the next travel
// together. It does not wait where that was in vain: handlers may be slow. Nor if
// there are many operations already, which gain little by company.
// The caller holds the lock; it is released meanwhile.
func (c *combiner) gather(g *group) {
	r := &c.round
	wait := min(r.took, maxGather)
	if len(c.queue)+1 >= r.peers || wait < minGather || c.limit > 1 {
		return
	}
	ops := len(g.ops)
	for _, q := range c.queue {
		ops += len(q.ops)
	}
	if ops >= manyOps {
		return
	}
	if r.skip > 0 {
		r.skip--
		return
	}
	all := make(chan struct{})
	r.all = all
	c.mu.Unlock()
	timer := time.NewTimer(wait)
	select {
	case <-all:
	case <-timer.C:
	}
	timer.Stop()
	c.mu.Lock()
	r.all = nil
	if 8*(len(c.queue)+1) > 7*r.peers { // a few that are late are no reason to go without the many
		r.missed = 0
		return
	}
	r.missed++
	r.skip = min(1<<min(r.missed, 16), maxSkip)
}

// ended notes how an Apply went for a batch of groups, beside which so many were
// left in the queue. The caller holds the lock.
func (c *combiner) ended(groups, left int, took time.Duration) {
	r := &c.round
	r.peers = groups + len(c.queue)
	if left > 0 {
		r.peers = 0 // there are more than fit in a batch
	}
	if r.took == 0 {
		r.took = took
	}
	r.took = (7*r.took + took) / 8
}

// next takes the first group off the queue that is there to be sent.
func (c *combiner) next() *group {
	for len(c.queue) > 0 {
		g := c.queue[0]
		c.queue = c.queue[1:]
		if g.state == groupQueued {
			return g
		}
	}
	return nil
}

// take makes a batch of g, which is off the queue, and of as many groups from
// the queue's front as fit beside it.
func (c *combiner) take(g *group) ([]*group, []driver.Op) {
	g.state = groupSent
	batch, count, bytes := append(g.batch, g), len(g.ops), g.bytes
	for len(c.queue) > 0 {
		q := c.queue[0]
		if q.state == groupQueued {
			if count+len(q.ops) > driver.MaxBatch || bytes+q.bytes > maxBatchBytes {
				break
			}
			count, bytes = count+len(q.ops), bytes+q.bytes
			q.state = groupSent
			batch = append(batch, q)
		}
		c.queue = c.queue[1:]
	}
	if len(batch) == 1 {
		return batch, g.ops
	}
	var ops []driver.Op
	if last := len(c.spare) - 1; last >= 0 {
		ops, c.spare = c.spare[last], c.spare[:last]
	}
	for _, q := range batch {
		ops = append(ops, q.ops...)
	}
	return batch, ops
}

// answer gives each group of a batch its replies, to be woken for. The claims that
// were granted to a caller who has gone are given back at once.
func (c *combiner) answer(batch []*group, a *applied) {
	replies := a.replies
	for _, g := range batch {
		g.answers = answers{replies[:len(g.ops):len(g.ops)], a}
		replies = replies[len(g.ops):]
		if g.state == groupAbandoned || g.wake == nil { // nobody else reads them
			c.giveBack(g)
			g.answers.done()
		}
		g.state = groupAnswered
	}
}

func (c *combiner) giveBack(g *group) {
	var ops []driver.Op
	for i, r := range g.answers.replies {
		if op := g.ops[i]; op.Kind == driver.OpClaim && r.Err == nil && r.Status == driver.StatusGranted {
			ops = append(ops, driver.Op{Kind: driver.OpRelease, ID: op.ID, Token: r.Record.Token, TTL: op.TTL, Uncounted: true})
		}
	}
	if len(ops) > 0 && c.ctx.Err() == nil {
		c.queue = append(c.queue, &group{ops: ops})
	}
}

func size(ops []driver.Op) (n int) {
	for i := range ops {
		n += opSize(&ops[i])
	}
	return n
}

// opSize is about what op takes in a store.
func opSize(op *driver.Op) int { return 128 + len(op.Result) + len(op.Note) }
