package assignment

import (
	"context"
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/transport/internal/owner"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// forgetTimeout is how long after a topic was missing its offsets are doubted.
const forgetTimeout = 5 * time.Second

// Identify finds out who consumed the partitions last and where they begin, and calls
// start for each as soon as that is known. It tries until it knows all, or ctx ends.
// failed is called after an error of the group.
func (a *Assignment) Identify(ctx context.Context, ps []*Partition, start func(*Partition), failed func()) {
	var backoff wait.Backoff
	for left := ps; len(left) > 0; {
		var err error
		switch left, err = a.identifySome(ctx, left, start); {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.run.Status.Bad(TheOwner, err)
			failed()
		default:
			a.run.Status.Good(TheOwner)
		}
		if len(left) > 0 {
			backoff.Wait(ctx)
		}
	}
}

// identifySome returns the partitions to be asked for again: all of them if there is
// an error.
func (a *Assignment) identifySome(ctx context.Context, ps []*Partition, start func(*Partition)) (left []*Partition, err error) {
	v, err := a.run.Vouch()
	if err != nil {
		return ps, err
	}
	counts := a.counts(ps)
	var names []Name
	for topic, n := range counts {
		for number := range int32(n) {
			names = append(names, Name{topic, number})
		}
	}
	commits, err := a.group.Committed(ctx, names)
	if err != nil {
		return ps, err
	}
	for _, p := range ps {
		c, answered := commits[p.Name]
		if !answered {
			c.Err = ErrNotAnswered
		}
		if c.Err != nil {
			a.run.Status.Bad(p.Title, fmt.Errorf("ask who consumed %s last: %w", p.Title, c.Err))
			left = append(left, p)
			continue
		}
		if err := a.forgotten(p, c); err != nil {
			a.run.Status.Bad(p.Title, err)
			left = append(left, p)
			continue
		}
		was := owner.Parse(c.Metadata)
		if p.first = c.Offset; c.Offset < 0 {
			if p.first, was.Parts, err = a.beginning(p, counts[p.Topic], commits); err != nil {
				a.run.Status.Bad(p.Title, err)
				left = append(left, p)
				continue
			}
		}
		a.identified(p, c, was, v)
		start(p)
	}
	return left, nil
}

// counts returns how many partitions the topics of ps have.
func (a *Assignment) counts(ps []*Partition) map[string]int {
	counts := make(map[string]int)
	for _, p := range ps {
		n, known := counts[p.Topic]
		if !known {
			n = a.run.PartitionCount(p.Topic)
		}
		counts[p.Topic] = max(n, int(p.Number)+1)
	}
	return counts
}

// forgotten returns an error as long as the group's offset of p may be that of a topic
// which was deleted: its coordinator forgets such offsets a moment after the brokers
// have the new topic. If there is an offset for longer, the topic was never gone.
func (a *Assignment) forgotten(p *Partition, c LastCommit) error {
	missing, doubted := a.run.missing.Load(p.Topic)
	if !doubted || c.Offset < 0 {
		return nil
	}
	at := missing.(time.Time)
	if last, ok := a.run.commits.Load(p.Name); ok && last.(time.Time).After(at) {
		return nil // it is of the new one
	}
	if time.Since(at) < forgetTimeout {
		return fmt.Errorf("%s was not there for a while: waiting whether the group forgets its offset %d", p.Title, c.Offset)
	}
	return nil
}

// beginning returns where p begins, which has no committed offset, and how many
// partitions its topic had when the group began with it.
//
// A topic that is new to the group begins as Start says. A partition that was added
// later, or whose topic was deleted and made anew while this member looked, begins at
// its beginning: nobody has consumed its messages.
//
// Members of a new group ask one after the other, so that one of them may find the
// first commits of others. These tell how many partitions there were then: those are
// no later ones.
func (a *Assignment) beginning(p *Partition, count int, commits map[Name]LastCommit) (first int64, parts int, err error) {
	consumed, counted := false, true
	for name, c := range commits {
		switch {
		case name.Topic != p.Topic:
			continue
		case c.Err != nil && a.run.Start == Latest: // else it begins at its beginning in any case
			return 0, 0, fmt.Errorf("ask whether the group consumed %v: %w", name, c.Err)
		case c.Err != nil, c.Offset < 0:
			continue
		}
		consumed = true
		n := owner.Parse(c.Metadata).Parts
		parts = max(parts, n)
		counted = counted && n > 0
	}
	_, renewed := a.run.missing.Load(p.Topic)
	switch {
	case renewed:
		return Earliest, max(parts, count), nil
	case !consumed:
		return a.run.Start, count, nil
	case counted && int(p.Number) < parts:
		return a.run.Start, parts, nil
	}
	return Earliest, parts, nil
}

// identified notes what the last commit of p says.
func (a *Assignment) identified(p *Partition, c LastCommit, was owner.Owner, v driver.Vouch) {
	var foreign bool
	p.owner, foreign = was.Next(c.Offset >= 0, v, time.Now())
	a.committing.Lock()
	if c.Metadata == p.owner.String() {
		p.own()
	}
	a.committing.Unlock()
	p.committed.Store(max(c.Offset, -1))
	log := a.run.Log.With("partition", p.Title, "store", v.ID)
	switch {
	case foreign && was.Store != "":
		log.Warn("partition was consumed with another store: its messages so far are flagged as stale", "other", was.Store)
	case foreign:
		log.Warn("the group's offset does not say with which store the partition was consumed, as after an operator set it or another kind of consumer committed it: the messages so far are flagged as stale")
	}
}
