package boltstore

import (
	"errors"
	"sync/atomic"
	"time"
)

// clock tells store time: what it was when the store was opened, and what has passed
// since. time.Now carries a monotonic reading, so the wall clock may be set meanwhile.
type clock struct {
	wall   func() time.Time
	uptime func() uptime
	opened time.Time    // what wall said then
	base   time.Time    // store time then
	last   atomic.Int64 // nanoseconds after base: store time never falls
}

// uptime is what has passed since a boot of the system. The zero boot is unknown.
type uptime struct {
	boot   [16]byte
	passed time.Duration
}

// newClock goes on from what a state on record says, if that was written since the
// system's last boot: the wall clock may have been set while the store was closed.
// Else it starts from the wall clock, and never before high, the last time on record.
func newClock(o *Options, last state, high time.Time) *clock {
	c := &clock{wall: o.Now, uptime: o.uptime}
	up := c.uptime()
	c.opened = c.wall()
	c.base = c.opened.Round(0).UTC()
	if closed := up.passed - last.up.passed; up.boot != (uptime{}).boot && up.boot == last.up.boot && closed >= 0 {
		c.base = last.time.Add(closed)
	}
	if high.After(c.base) {
		c.base = high
	}
	return c
}

// noteBoot has the log tell store time by this boot of the system, if it does not. A
// disk that is full shows with a claim.
func (s *Store) noteBoot(last state) error {
	if last.file == 0 || last.up.boot == s.clock.uptime().boot {
		return nil // it is a new store, or told already
	}
	if err := s.writeState(); !errors.Is(err, ErrFull) {
		return err
	}
	return nil
}

// tolerated is how far store time and the wall clock may be apart: clocks are set and
// slewed all the time.
const tolerated = time.Minute

// latest returns store time or the wall clock, whichever is later: what is unknown is
// unknown up to then.
func (c *clock) latest() time.Time {
	return latest(c.now(), c.wall().Round(0).UTC())
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
