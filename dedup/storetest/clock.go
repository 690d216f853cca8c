package storetest

import (
	"sync"
	"time"
)

// movingClock is a Clock that moves when it is told to.
type movingClock struct {
	mu        sync.Mutex
	now       time.Time
	onAdvance []func(time.Time)
}

func newClock() *movingClock {
	return &movingClock{now: time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)}
}

func (c *movingClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *movingClock) OnAdvance(f func(time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onAdvance = append(c.onAdvance, f)
}

// advance moves the time by d, which is negative for a wall clock that is set
// back.
func (c *movingClock) advance(d time.Duration) {
	if d%time.Millisecond != 0 {
		panic("storetest: the clock moves by whole milliseconds")
	}
	c.mu.Lock()
	c.now = c.now.Add(d)
	now, fs := c.now, c.onAdvance
	c.mu.Unlock()
	for _, f := range fs {
		f(now)
	}
}
