package window

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// Budget bounds what the Windows of all partitions have in flight together.
type Budget struct {
	maxCount, maxBytes int64
	count, bytes       atomic.Int64

	starving atomic.Int32 // waiters
	mu       sync.Mutex
	waiters  []chan struct{}
}

// NewBudget makes a Budget of that many messages and bytes.
func NewBudget(messages, bytes int) *Budget {
	return &Budget{maxCount: int64(messages), maxBytes: int64(bytes)}
}

// take takes room for a message. A partition that has nothing in flight gets it
// always: it must not starve because others are stuck.
func (b *Budget) take(size int, always bool) bool {
	count, bytes := b.count.Add(1), b.bytes.Add(int64(size))
	if always || count <= b.maxCount && bytes <= b.maxBytes {
		return true
	}
	b.count.Add(-1)
	b.bytes.Add(int64(-size))
	return false
}

// free gives room for messages back.
func (b *Budget) free(messages, bytes int) {
	b.count.Add(int64(-messages))
	b.bytes.Add(int64(-bytes))
	b.wake()
}

// wait makes a later wake signal c. The caller then tries to take once more,
// because there may be room since, and ends the wait with done.
func (b *Budget) wait(c chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiters = append(b.waiters, c)
	b.starving.Store(int32(len(b.waiters)))
}

// done ends the wait of c. If c has no use for a wake that it got, or leaves room,
// more is set and the next waiter is signalled.
func (b *Budget) done(c chan struct{}, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if i := slices.Index(b.waiters, c); i >= 0 {
		b.waiters = slices.Delete(b.waiters, i, i+1)
		b.starving.Store(int32(len(b.waiters)))
	} else if more {
		b.wakeNext()
	}
}

// wake signals the longest waiter.
func (b *Budget) wake() {
	if b.starving.Load() > 0 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.wakeNext()
	}
}

func (b *Budget) wakeNext() {
	if len(b.waiters) > 0 {
		wait.Notify(b.waiters[0])
		b.waiters = b.waiters[1:]
		b.starving.Store(int32(len(b.waiters)))
	}
}
