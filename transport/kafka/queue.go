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
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// take waits for items and returns the oldest ones, at most limit, in to, which
// it overwrites. It returns none once quit is closed.
func (q *queue) take(to []item, limit int, quit <-chan struct{}) []item {
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		q.mu.Lock()
		n := min(len(q.items), limit)
		to = append(to[:0], q.items[:n]...)
		left := copy(q.items, q.items[n:])
		clear(q.items[left:])
		q.items = q.items[:left]
		q.mu.Unlock()
		if n > 0 {
			return to
		}
		select {
		case <-quit:
			return nil
		case <-q.filled:
		}
	}
}
