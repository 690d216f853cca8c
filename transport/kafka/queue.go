package kafkatransport

import (
	"sync"

	"github.com/oncequeue/oncequeue/dedup"
)

// item is a dispatched message on its way to the Deduplicator.
type item struct {
	partition *partition
	message   *dedup.Message
	seq       uint64
}

// queue passes items to one goroutine. It does not bound them: the trackers of
// their partitions do.
type queue struct {
	filled chan struct{} // has an element after items were put

	mu    sync.Mutex
	items []item
}

func newQueue() *queue { return &queue{filled: make(chan struct{}, 1)} }

func (q *queue) put(items ...item) {
	q.mu.Lock()
	q.items = append(q.items, items...)
	q.mu.Unlock()
	notify(q.filled)
}

// poll appends the oldest items, at most limit, to to. It does not wait.
func (q *queue) poll(to []item, limit int) []item {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.items), limit)
	to = append(to, q.items[:n]...)
	left := copy(q.items, q.items[n:])
	clear(q.items[left:])
	q.items = q.items[:left]
	return to
}
