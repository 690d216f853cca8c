// Package combine carries out the operations of many callers in one call of the store.
package combine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// MaxBytes bounds the room that the ops of one Apply take in a store, as far as
// they come from several callers or in several groups.
const MaxBytes = 1 << 20

// Combiner is the group commit. Callers queue their operations. A caller that
// finds no Apply under way carries out everything that is queued, in one batch, and
// hands the lead to the next in the queue. The waiter says whether it waits for company
// before. A caller that is alone waits for nobody, and there is no goroutine of its own.
type Combiner struct {
	ctx     context.Context
	apply   func([]driver.Op, *Applied) // never panics, and answers every op
	recycle func([]driver.Reply)        // nil: the store has no use for its own
	limit   int                         // Applies under way at once

	mu      sync.Mutex
	leading int
	queue   []*group
	spare   [][]driver.Op // buffers of finished batches
	waiter  waiter

	groups  sync.Pool // of *group that nobody refers to
	applied sync.Pool // of *Applied that nobody refers to
}

// group is the operations of one caller. They travel in one batch.
type group struct {
	ops     []driver.Op
	bytes   int
	answers Answers
	state   groupState
	batch   []*group      // room for the batch that its caller leads
	waits   bool          // its caller does, for one wake: to lead, or that it is answered
	wake    chan struct{} // with room for one; nil: there is no caller
}

// Answers are the replies to one group, a part of those of an Apply. A caller that has
// read them calls Done.
type Answers struct {
	Replies []driver.Reply
	of      *Applied
}

// Applied is what an Apply returned, and how many have not read it yet.
type Applied struct {
	c       *Combiner
	At      time.Time // when it was called: the replies are no older
	Took    time.Duration
	Replies []driver.Reply
	readers atomic.Int32
	Own     bool // the replies are the store's
}

// Done says that the answers are of no more use.
func (a Answers) Done() {
	if a.of != nil {
		a.of.done()
	}
}

// At returns when the store was asked: the answers are no older.
func (a Answers) At() time.Time {
	if a.of == nil {
		return time.Time{}
	}
	return a.of.At
}

func (a *Applied) done() {
	if a.readers.Add(-1) != 0 {
		return
	}
	if a.Own && a.c.recycle != nil {
		a.c.recycle(a.Replies)
	}
	a.Replies = nil
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

// Init comes first. ctx ends at the deadline of Shutdown. At most limit calls of apply are
// under way at once. apply never panics, and answers every operation. recycle takes back
// replies that are marked as Own; it may be nil.
func (c *Combiner) Init(ctx context.Context, limit int, apply func([]driver.Op, *Applied), recycle func([]driver.Reply)) {
	c.ctx, c.limit, c.apply, c.recycle = ctx, limit, apply, recycle
	c.applied.New = func() any { return &Applied{c: c} }
	c.groups.New = func() any { return &group{wake: make(chan struct{}, 1)} }
}

// Do carries out ops, at most MaxBatch of them, and returns a reply for each.
// When ctx ends first it returns the cause: then the ops were not sent, or a
// claim that is granted all the same is released, uncounted. A caller that leads
// waits for its Apply, whatever ctx says.
func (c *Combiner) Do(ctx context.Context, ops []driver.Op) (Answers, error) {
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
	c.waiter.queued(len(c.queue) + 1)
	c.mu.Unlock()
	select {
	case <-g.wake:
	case <-ctx.Done():
		if c.leave(g) {
			return Answers{}, context.Cause(ctx)
		}
		<-g.wake
	}
	if g.state == groupLeads { // a caller that is woken reads it without the lock: many are woken at one time
		c.mu.Lock()
		c.lead(g)
	}
	return c.result(g), nil
}

// leave reports whether the caller of g may go. Else its wake is on the way.
func (c *Combiner) leave(g *group) bool {
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
func (c *Combiner) result(g *group) Answers {
	a := g.answers
	*g = group{wake: g.wake, batch: g.batch}
	c.groups.Put(g)
	return a
}

// lead carries out g and what fits beside it, and then hands the lead to the
// next in the queue. Only groups that nobody waits for it carries out itself.
// The caller holds the lock; it is released during Apply, and at the end.
func (c *Combiner) lead(g *group) {
	for {
		c.gather(g)
		batch, ops := c.take(g)
		left := len(c.queue)
		c.mu.Unlock()
		a := c.applied.Get().(*Applied)
		c.apply(ops, a)
		c.mu.Lock()
		c.waiter.ended(len(batch), left, len(c.queue), a.Took)
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

// gather waits for company beside g, if the waiter says so. The caller holds the lock; it
// is released meanwhile.
func (c *Combiner) gather(g *group) {
	wait := c.waiter.wait(len(c.queue) + 1)
	if wait == 0 || c.limit > 1 || c.operations(g) >= manyOps || c.waiter.skips() {
		return
	}
	all := c.waiter.start()
	c.mu.Unlock()
	timer := time.NewTimer(wait)
	select {
	case <-all:
	case <-timer.C:
	}
	timer.Stop()
	c.mu.Lock()
	c.waiter.waited(len(c.queue) + 1)
}

// operations counts those of g and of the queue.
func (c *Combiner) operations(g *group) int {
	ops := len(g.ops)
	for _, q := range c.queue {
		ops += len(q.ops)
	}
	return ops
}

// next takes the first group off the queue that is there to be sent.
func (c *Combiner) next() *group {
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
func (c *Combiner) take(g *group) ([]*group, []driver.Op) {
	g.state = groupSent
	batch, count, bytes := append(g.batch, g), len(g.ops), g.bytes
	for len(c.queue) > 0 {
		q := c.queue[0]
		if q.state == groupQueued {
			if count+len(q.ops) > driver.MaxBatch || bytes+q.bytes > MaxBytes {
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

// answer gives each group of a batch its replies, to be woken for. Claims that were
// granted to a caller that has gone are given back at once.
func (c *Combiner) answer(batch []*group, a *Applied) {
	replies := a.Replies
	for _, g := range batch {
		g.answers = Answers{replies[:len(g.ops):len(g.ops)], a}
		replies = replies[len(g.ops):]
		if g.state == groupAbandoned || g.wake == nil { // nobody else reads them
			c.giveBack(g)
			g.answers.Done()
		}
		g.state = groupAnswered
	}
}

func (c *Combiner) giveBack(g *group) {
	var ops []driver.Op
	for i, r := range g.answers.Replies {
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
		n += Size(&ops[i])
	}
	return n
}

// Size is about what op takes in a store.
func Size(op *driver.Op) int { return 128 + len(op.Result) + len(op.Note) }
