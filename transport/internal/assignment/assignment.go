package assignment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// commitTimeout bounds a commit: a rebalance waits for it.
const commitTimeout = 2 * time.Second

// Assignment is the partitions that this member holds. Its methods may be called by
// several goroutines at once.
type Assignment struct {
	run    *Run
	group  Group
	wanted chan struct{} // has an element when partitions wait for the commit that names their owner
	stop   chan struct{} // has an element when all partitions have halted

	mu         sync.Mutex
	partitions []*Partition
	halts      map[*Partition]error

	committing sync.Mutex // held during a commit: one comes after the other
}

// New makes an Assignment without partitions.
func (r *Run) New(g Group) *Assignment {
	return &Assignment{run: r, group: g, wanted: make(chan struct{}, 1), stop: make(chan struct{}, 1), halts: make(map[*Partition]error)}
}

// Add takes in a partition that the group gave this member. Nothing is asked for it
// before Identify.
func (a *Assignment) Add(name Name) *Partition {
	p := newPartition(a, name)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.partitions = append(a.partitions, p)
	return p
}

// Partitions returns the partitions that this member holds now.
func (a *Assignment) Partitions() []*Partition {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.partitions)
}

// Wanted has an element when Commit should be called at once.
func (a *Assignment) Wanted() <-chan struct{} { return a.wanted }

// AllHalted has an element when every partition may have halted: see Halts.
func (a *Assignment) AllHalted() <-chan struct{} { return a.stop }

func (a *Assignment) halted(p *Partition, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.halts[p] = err
	if a.haltedAll() {
		select {
		case a.stop <- struct{}{}:
		default:
		}
	}
}

func (a *Assignment) haltedAll() bool {
	return len(a.partitions) > 0 && len(a.halts) >= len(a.partitions)
}

// Halts returns why the partitions halted, or nil if there is one that has not.
func (a *Assignment) Halts() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.haltedAll() {
		return nil
	}
	var errs []error
	for _, p := range a.partitions {
		errs = append(errs, a.halts[p])
	}
	return errors.Join(errs...)
}

// remove forgets partitions that are over.
func (a *Assignment) remove(ps []*Partition) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.partitions = slices.DeleteFunc(a.partitions, func(p *Partition) bool { return slices.Contains(ps, p) })
	for _, p := range ps {
		delete(a.halts, p)
	}
}

// Commit commits the watermarks that grew, and names the owners that are not named yet.
// The error holds what the group answered, for errors.Is.
func (a *Assignment) Commit() error {
	a.committing.Lock()
	defer a.committing.Unlock()
	type mark struct {
		*Partition
		offset int64
		resets int
	}
	var marks []mark
	var request []Mark
	for _, p := range a.Partitions() {
		a.warn(p)
		if !p.located.Load() || p.gone.Load() || p.over.Load() {
			continue
		}
		m := mark{Partition: p}
		m.offset, m.resets = p.window.Watermark()
		if p.named && m.offset <= p.committed.Load() && m.resets == p.resetsCommitted {
			continue
		}
		marks = append(marks, m)
		request = append(request, Mark{p.Name, m.offset, p.owner.String()})
	}
	if len(marks) == 0 {
		return nil
	}
	r := a.run
	ctx, cancel := context.WithTimeout(r.base, commitTimeout)
	defer cancel()
	now := time.Now()
	refused, err := a.group.Commit(ctx, request)
	if err != nil {
		r.Status.Bad(TheCommit, err)
		return err
	}
	r.Status.Good(TheCommit)
	if len(refused) < len(marks) {
		r.Counts.Commits.Add(1)
	}
	for _, m := range marks {
		part := TheCommit + " " + m.Title
		switch why := refused[m.Name]; {
		case why == nil:
			r.Status.Good(part)
			m.committed.Store(m.offset)
			m.resetsCommitted = m.resets
			m.own()
			r.commits.Store(m.Name, now)
		case errors.Is(why, ErrLater):
		default:
			r.Status.Bad(part, why)
			err = errors.Join(err, fmt.Errorf("%s: %w", m.Title, why))
		}
	}
	return err
}

// warn logs once when p begins to wait for a message. The caller holds committing.
func (a *Assignment) warn(p *Partition) {
	offset, since, waits := p.Waiting()
	if waits && !p.warned {
		a.run.Log.Warn("partition waits: nothing more is fetched until this message is settled", "partition", p.Title, "offset", offset, "since", since)
	}
	p.warned = waits
}

// Drain gives partitions up: nothing new begins, and running handlers may finish within
// DrainTimeout. Then their contexts are cancelled. Messages that they settle are committed
// meanwhile: a commit also tells the group that this member lives, when heartbeats have
// ended. The other partitions go on.
func (a *Assignment) Drain(ps []*Partition) {
	r := a.run
	r.Counts.Drains.Add(1)
	idle := a.giveUp(ps)
	commit := time.NewTicker(r.DrainCommit)
	defer commit.Stop()
	limit := time.NewTimer(r.DrainTimeout)
	defer limit.Stop()
	cancelled := false
	for drained := false; !drained; {
		select {
		case <-idle:
			drained = true
		case <-commit.C:
			_ = a.Commit() // an error is in the status; the messages come again, as duplicates
		case <-limit.C:
			if drained = cancelled; !drained {
				cancelled = true
				for _, p := range ps {
					p.cancel(r.Revoked)
				}
				limit.Reset(r.Grace)
			}
		}
	}
	_ = a.Commit()
	a.close(ps)
}

// Lose gives partitions up that are another member's already: the contexts of their
// handlers are cancelled, and nothing is committed.
func (a *Assignment) Lose(ps []*Partition) {
	for _, p := range ps {
		p.over.Store(true)
	}
	a.giveUp(ps)
	for _, p := range ps {
		p.cancel(a.run.Revoked)
	}
	a.close(ps)
}

// Stop begins to give partitions up: nothing new begins once it has returned. Drain or Lose is
// to follow, which stop the partitions themselves if Stop was not called.
func (a *Assignment) Stop(ps []*Partition) {
	for _, p := range ps {
		p.stop()
		p.line.Stop()
	}
}

// giveUp stops partitions. The channel is closed when nothing of them runs.
func (a *Assignment) giveUp(ps []*Partition) <-chan struct{} {
	a.Stop(ps)
	idle := make(chan struct{})
	a.run.stragglers.Go(func() {
		for _, p := range ps {
			<-p.line.Idle()
			p.cancel(nil)
		}
		close(idle)
	})
	return idle
}

// close ends the commits for partitions that were given up.
func (a *Assignment) close(ps []*Partition) {
	a.committing.Lock() // none is under way afterwards
	for _, p := range ps {
		p.over.Store(true)
	}
	a.committing.Unlock()
	a.remove(ps)
	others := len(a.Partitions()) > 0
	for _, p := range ps {
		p.window.Close()
		if others { // else the next assignment says what fails still
			a.run.Status.Forget(p.Title)
			a.run.Status.Forget(TheCommit + " " + p.Title)
		}
	}
}
