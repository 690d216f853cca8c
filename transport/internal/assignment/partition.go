package assignment

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/lanes"
	"github.com/oncequeue/oncequeue/transport/internal/owner"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// Partition is one partition for as long as this member holds it.
type Partition struct {
	Name
	Title string // Name as a string, for logs and for status.Status
	// End is the end of the log, as last heard; -1: not yet.
	End atomic.Int64

	a        *Assignment
	window   *window.Window
	line     *lanes.Line
	handlers context.Context // of all handlers
	cancel   context.CancelCauseFunc
	fetching context.Context
	stop     context.CancelFunc

	// Set by Identify, before it calls start.
	first int64 // where it begins: an offset, Earliest or Latest
	owner owner.Owner

	located   atomic.Bool
	halted    atomic.Bool
	gone      atomic.Bool // its topic was not there for a while, so its offsets mean nothing
	over      atomic.Bool // drained or taken away
	committed atomic.Int64
	owned     chan struct{} // closed when the last commit names the owner

	goneSince time.Time // for Missing

	// The Assignment's committing guards these.
	named           bool // the last commit names the owner
	resetsCommitted int  // of the window, at that time
	warned          bool // that it waits for a message
}

func newPartition(a *Assignment, name Name) *Partition {
	r := a.run
	p := &Partition{Name: name, Title: name.String(), a: a, window: window.New(Latest, r.Bounds, r.Total), first: Latest, owned: make(chan struct{})}
	p.handlers, p.cancel = context.WithCancelCause(r.base)
	p.fetching, p.stop = context.WithCancel(r.base)
	p.committed.Store(-1)
	p.End.Store(-1)
	p.line = r.Pool.Line(p.handlers, (*reporter)(p))
	return p
}

// reporter is a Partition as its Line sees it.
type reporter Partition

// Settled implements lanes.Partition.
func (r *reporter) Settled(f *window.Flight) {
	f.Settle()
	if r.over.Load() {
		r.a.run.Counts.Late.Add(1)
	}
}

// Halt implements lanes.Partition.
func (r *reporter) Halt(offset int64, res dedup.Result) {
	err := res.Err
	if err == nil {
		err = fmt.Errorf("outcome %v", res.Outcome)
	}
	(*Partition)(r).Halt(offset, err)
}

// Fetching ends when nothing more is to be fetched: the partition has halted, or is
// being given up.
func (p *Partition) Fetching() context.Context { return p.fetching }

// First returns where the partition begins: an offset, Earliest or Latest.
func (p *Partition) First() int64 { return p.first }

// Since is dedup.Message.Since of its messages.
func (p *Partition) Since() time.Time { return p.owner.Since }

// Halted says whether the partition has halted.
func (p *Partition) Halted() bool { return p.halted.Load() }

// Gone says whether the partition's topic was missing, so that nothing is committed for
// it any more.
func (p *Partition) Gone() bool { return p.gone.Load() }

// StartAt returns the offset that First stands for in a log that begins at start and
// ends at end.
func (p *Partition) StartAt(start, end int64) int64 {
	switch p.first {
	case Earliest:
		return start
	case Latest:
		if end > start {
			p.a.run.Counts.Skipped.Add(end - start)
			p.a.run.Log.Warn("partition begins at its end: its messages are skipped", "partition", p.Title, "from", start, "to", end, "skipped", end-start)
		}
		return end
	}
	return p.first
}

// Begin says that the partition begins at offset, and waits until the group's commit
// names the owner: another store must not miss the work that begins then.
// It returns false if fetching ended first.
func (p *Partition) Begin(offset int64) bool {
	p.window.Advance(offset)
	p.located.Store(true)
	wait.Notify(p.a.wanted)
	select {
	case <-p.owned:
		return true
	case <-p.fetching.Done():
		return false
	}
}

// own notes that the last commit names the owner. The caller holds committing.
func (p *Partition) own() {
	if !p.named {
		p.named = true
		close(p.owned)
	}
}

// Put hands messages to the lanes, as there is room for them, and says that there is
// no other before next. It returns false if fetching ended first. One goroutine may
// call it at a time.
func (p *Partition) Put(ms []dedup.Message, next int64) bool {
	for len(ms) > 0 {
		flights := p.window.Dispatch(p.fetching, ms)
		if len(flights) == 0 {
			return false
		}
		ms = ms[len(flights):]
		p.line.Put(flights)
	}
	p.window.Advance(next)
	return true
}

// Skip makes the partition go on at target instead of offset. If target is lower, it
// waits for the messages in flight, which have the old offsets. It returns false if fetching
// ended first.
func (p *Partition) Skip(offset, target int64, why error) bool {
	for target < offset && !p.window.Reset(target) {
		select {
		case <-p.fetching.Done():
			return false
		case <-p.window.Freed():
		}
	}
	p.window.Advance(target)
	skipped := max(target-offset, 0)
	p.a.run.Counts.Skipped.Add(skipped)
	p.a.run.Log.Error("partition skips offsets, as OutOfRange says", "partition", p.Title, "from", offset, "to", target, "skipped", skipped, "err", why)
	return true
}

// Halt stops the partition for as long as this member holds it: waiting messages are not run,
// nothing more is fetched, the watermark stays where it is, and the other partitions
// get its room in flight.
func (p *Partition) Halt(offset int64, err error) {
	if p.halted.Swap(true) {
		return
	}
	p.stop()
	p.line.Stop()
	p.window.Close()
	p.a.run.Log.Error("partition halted, an operator must look", "partition", p.Title, "offset", offset, "err", err)
	p.a.halted(p, fmt.Errorf("%s@%d: %w", p.Title, offset, err))
}

// vanishTimeout is how long a partition may be missing before the member should join the
// group anew, to be told what there is.
const vanishTimeout = time.Second

// Missing follows the answers to p's fetches: whether the brokers said that the
// partition does not exist. One goroutine calls it.
//
// A partition that does not exist for a moment may be another one afterwards, with its
// own offsets; brokers forget the group's offsets together with the topic. So nothing
// more is committed for it, nor for the others of its topic, which may not have been
// asked for meanwhile. Missing returns true when this member is to join anew, to learn
// where to begin.
func (p *Partition) Missing(missing bool) (rejoin bool) {
	now := time.Now()
	if missing {
		p.a.run.missing.Store(p.Topic, now)
		if p.goneSince.IsZero() {
			p.goneSince = now
			for _, other := range p.a.Partitions() {
				if other.Topic == p.Topic {
					other.gone.Store(true)
				}
			}
		}
	}
	return p.gone.Load() && (!missing || now.Sub(p.goneSince) >= vanishTimeout)
}

// Stats are the figures of a Partition.
type Stats struct {
	Topic         string
	Partition     int32
	Watermark     int64     // offset up to which, itself excluded, all is settled; negative: not known yet
	Committed     int64     // last committed offset; -1 if none
	End           int64     // of the log, as last heard; -1: not known yet
	InFlight      int       // messages fetched and not settled
	InFlightBytes int       // of their keys, values and headers
	Oldest        time.Time // when the oldest of them was fetched; zero if there is none
	Halted        bool
	Waiting       bool // nothing more is fetched until the oldest message is settled
}

// Stats returns the figures of now.
func (p *Partition) Stats() Stats {
	l := p.window.Load()
	s := Stats{
		Topic:         p.Topic,
		Partition:     p.Number,
		Committed:     p.committed.Load(),
		End:           p.End.Load(),
		InFlight:      l.Messages,
		InFlightBytes: l.Bytes,
		Oldest:        l.Oldest,
		Halted:        p.halted.Load(),
	}
	s.Watermark, _ = p.window.Watermark()
	_, _, s.Waiting = p.Waiting()
	return s
}

// waitingAfter is how long the oldest message must be in hand before a partition
// without room is said to wait for it.
const waitingAfter = 5 * time.Second

// Waiting returns the message that p waits for: it is not settled, and so much is
// settled or waits behind it that nothing more is fetched.
func (p *Partition) Waiting() (offset int64, since time.Time, waits bool) {
	l := p.window.Load()
	if p.halted.Load() || l.Oldest.IsZero() || l.Blocked != window.Full && l.Blocked != window.FarAhead || time.Since(l.Oldest) < waitingAfter {
		return 0, time.Time{}, false
	}
	offset, _ = p.window.Watermark()
	return offset, l.Oldest, true
}
