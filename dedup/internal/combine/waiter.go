package combine

import "time"

// waiter decides whether the leader of a batch waits for company before it calls the
// store, and for how long.
//
// The problem. Two callers have a batch in flight each. The first comes back with its
// records while the second one's Apply is under way, and the second comes back while the
// first one's is. So they never share an Apply, though each could take both. A durable
// store pays for each Apply about the same, however many operations it has.
//
// The idea. The callers of the last Apply are busy for a moment with its answers, and
// then often come back: with the records of that batch, or with the claims of the next
// one. So the leader waits until as many groups are queued as took part in the last
// round. It waits for one average Apply at most: a longer wait would cost more than the
// Apply that it saves. And never for more than 2 ms.
//
// Handlers may be slow, and then nobody comes. If an eighth or more of the callers of the
// last round are missing, the wait was in vain. The leader then skips 2 rounds, then 4,
// and so on up to 64, before it tries again. A few late callers are no reason to go
// without the many.
//
// The leader does not wait with 512 operations or more, which gain little by company. It
// does not wait for a store that takes several Applies at once, nor if an average Apply
// takes less than 20 microseconds, which timers cannot measure.
//
// The figures. With two batches in flight on a disk, 1,000 messages took 12.5 fsyncs
// without the wait and 8.4 with it.
//
// The mutex of the Combiner guards a waiter.
type waiter struct {
	peers  int           // groups that were carried out in the last round, or queued meanwhile
	took   time.Duration // moving average of an Apply
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

// wait returns for how long so many groups may wait for more; 0 if they are all, or if
// an Apply is too short for a wait.
func (r *waiter) wait(groups int) time.Duration {
	wait := min(r.took, maxGather)
	if groups >= r.peers || wait < minGather {
		return 0
	}
	return wait
}

// skips reports whether this round goes without a wait, because the last ones were in
// vain.
func (r *waiter) skips() bool {
	if r.skip > 0 {
		r.skip--
		return true
	}
	return false
}

// start begins a wait. The channel closes when all peers are there.
func (r *waiter) start() <-chan struct{} {
	r.all = make(chan struct{})
	return r.all
}

// queued ends the wait if so many groups are all.
func (r *waiter) queued(groups int) {
	if r.all != nil && groups >= r.peers {
		close(r.all)
		r.all = nil
	}
}

// waited notes how many groups there are after a wait.
func (r *waiter) waited(groups int) {
	r.all = nil
	if 8*groups > 7*r.peers {
		r.missed = 0
		return
	}
	r.missed++
	r.skip = min(1<<min(r.missed, 16), maxSkip)
}

// ended notes how an Apply went for a batch of groups. left were in the queue when it
// began, and queued are in it now.
func (r *waiter) ended(groups, left, queued int, took time.Duration) {
	r.peers = groups + queued
	if left > 0 {
		r.peers = 0 // there are more than fit in a batch
	}
	if r.took == 0 {
		r.took = took
	}
	r.took = (7*r.took + took) / 8
}
