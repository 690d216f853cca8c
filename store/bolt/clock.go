package boltstore

import (
	"sync/atomic"
	"time"
)

// clock tells store time: the greater of the wall clock and the last time on
// record when the store was opened, and what has passed since. time.Now carries
// a monotonic reading, so the wall clock may be set meanwhile.
type clock struct {
	wall   func() time.Time
	opened time.Time    // what wall said then
	base   time.Time    // store time then
	last   atomic.Int64 // nanoseconds after base: store time never falls
}

func newClock(wall func() time.Time, high time.Time) *clock {
	c := &clock{wall: wall, opened: wall()}
	c.base = c.opened.Round(0).UTC()
	if high.After(c.base) {
		c.base = high
	}
	return c
}

func (c *clock) now() time.Time {
	elapsed := int64(c.wall().Sub(c.opened))
	for {
		last := c.last.Load()
		if elapsed <= last {
			return c.base.Add(time.Duration(last))
		}
		if c.last.CompareAndSwap(last, elapsed) {
			return c.base.Add(time.Duration(elapsed))
		}
	}
}
