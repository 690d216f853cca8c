package boltstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options configure a Store. nil and zero values mean the defaults; they are
// copied, never written to.
type Options struct {
	// VouchFrom is an operator's word, at the creation of a store, that no message
	// published since then was processed by anyone else: messages older than the
	// new store are then not Stale. It changes nothing about a store that exists,
	// and must not be in the future. Default: the time of creation.
	VouchFrom time.Time
	// RollBytes is the size in bytes from which a file takes no more records. One
	// batch may exceed it, and on a full disk what is settled. Default 96 MiB, or an eighth of MaxBytes if that is less.
	RollBytes int64
	// MaxBytes is how many bytes the store may take on disk, 64 MiB at least. What
	// lives is never evicted: near MaxBytes new claims are refused with ErrFull
	// until records expire, and the rest is for settling what runs. Default: none,
	// so that the disk is the limit.
	MaxBytes int64
	// RollAge is the age from which a file takes no more records. A record takes
	// up disk and memory for at most about its TTL + RollAge: a 24th of the TTL is
	// a good value. Default 1h.
	RollAge time.Duration
	// Logger receives what no return value can carry: a file that cannot be
	// removed, a write that failed, a file system that is no good place for a
	// store. Default: discards.
	Logger *slog.Logger
	// Now is the clock, for tests. Once the store is open only the time that
	// passes on it counts, so a wall clock that is set back or forth revives and
	// forgets nothing. Default time.Now.
	Now func() time.Time

	uptime func() uptime // known by time.Now only, and set by tests
}

const (
	// From 113 MiB on bbolt's tree has a fourth level, and each batch writes a page more.
	defaultRollBytes = 96 << 20
	defaultRollAge   = time.Hour
	minMaxBytes      = 64 << 20
	minRollBytes     = 32 << 10 // bbolt's own smallest mapping
	maxRollBytes     = 1 << 30  // mapped at once, by each file that is open
	minRollAge       = time.Millisecond
)

// filled returns a copy of o with the defaults in place, or what is wrong.
func (o *Options) filled() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	var wrong []error
	refuse := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("boltstore: "+format, args...)) }
	if c.MaxBytes != 0 && c.MaxBytes < minMaxBytes {
		refuse("MaxBytes %d is less than %d: raise it", c.MaxBytes, minMaxBytes)
	}
	switch {
	case c.RollBytes == 0:
		c.RollBytes = defaultRollBytes
		if c.MaxBytes > 0 {
			c.RollBytes = min(c.RollBytes, c.MaxBytes/8)
		}
	case c.RollBytes < minRollBytes:
		refuse("RollBytes %d is less than %d, the size of an empty file: raise it", c.RollBytes, minRollBytes)
	case c.RollBytes > maxRollBytes:
		refuse("RollBytes %d is more than %d, which is mapped into memory at once: lower it", c.RollBytes, int64(maxRollBytes))
	case c.MaxBytes > 0 && c.RollBytes > c.MaxBytes/4:
		refuse("RollBytes %d is more than a quarter of MaxBytes %d, so too little could be dropped at once: lower it, or raise MaxBytes", c.RollBytes, c.MaxBytes)
	}
	switch {
	case c.RollAge == 0:
		c.RollAge = defaultRollAge
	case c.RollAge < 0:
		refuse("RollAge %v is negative", c.RollAge)
	case c.RollAge < minRollAge:
		refuse("RollAge %v is less than %v, and each file costs memory: raise it", c.RollAge, minRollAge)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now, c.uptime = time.Now, systemUptime
	}
	if c.uptime == nil {
		c.uptime = func() uptime { return uptime{} }
	}
	if now := c.Now(); c.VouchFrom.After(now) {
		refuse("VouchFrom %v is in the future: give a time up to now", c.VouchFrom)
	}
	return c, errors.Join(wrong...)
}
