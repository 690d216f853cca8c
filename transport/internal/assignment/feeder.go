package assignment

import (
	"sync"

	"github.com/oncequeue/oncequeue/dedup"
)

// Feeder puts messages into a Partition for a client that polls for many partitions at
// once, and must not wait for room in one of them.
type Feeder struct {
	p      *Partition
	resume func()

	mu      sync.Mutex
	backlog []fetched
	feeding bool
}

type fetched struct {
	messages []dedup.Message
	next     int64
}

// NewFeeder makes the Feeder of p. resume is called when a Feeder that was full has
// room again: the client goes on fetching p.
func (p *Partition) NewFeeder(resume func()) *Feeder { return &Feeder{p: p, resume: resume} }

// Put takes over the messages of a poll, and does not wait. It returns true if the Feeder
// is full now: the client is to pause p, before its next poll, until resume is called.
// Messages of a poll under way are taken all the same.
func (f *Feeder) Put(ms []dedup.Message, next int64) (full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.p.fetching.Err() != nil {
		f.backlog = nil
		return false
	}
	if !f.feeding {
		flights, _ := f.p.window.TryDispatch(ms)
		if len(flights) > 0 {
			f.p.line.Put(flights)
		}
		if ms = ms[len(flights):]; len(ms) == 0 {
			f.p.window.Advance(next)
			return false
		}
		f.feeding = true
		go f.feed()
	}
	f.backlog = append(f.backlog, fetched{ms, next})
	return true
}

// feed puts the backlog, until there is none or fetching has ended.
func (f *Feeder) feed() {
	for {
		f.mu.Lock()
		if len(f.backlog) == 0 {
			f.feeding = false
			f.mu.Unlock()
			f.resume()
			return
		}
		next := f.backlog[0]
		f.backlog = f.backlog[1:]
		f.mu.Unlock()
		if !f.p.Put(next.messages, next.next) {
			return
		}
	}
}
