package boltstore

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Options configure a [Store]. A nil *Options, and each zero field, means the default. Open
// copies the Options and never changes them.
type Options struct {
	// VouchFrom is an operator's statement, when a store is created, that nobody else has
	// processed a message published since then. Messages that are older than the new store,
	// but not older than VouchFrom, are then not stale. It has no effect on a store that
	// exists. It must not be in the future. Default: the time of creation.
	VouchFrom time.Time
	// RollBytes is the size in bytes from which a file takes no more records. A file can
	// become larger by one batch, and on a full disk by the records of runs that have
	// begun. At least 32 KiB. Default 96 MiB, or an eighth of MaxBytes if that is less; at
	// most a quarter of MaxBytes.
	RollBytes int64
	// MaxBytes is how many bytes the store may take on disk, at least 64 MiB. Near MaxBytes,
	// new claims are refused with ErrFull until records expire. The remaining room is for
	// recording the runs that have begun. No record is dropped before it has expired.
	// Default: no limit but the disk.
	MaxBytes int64
	// RollAge is the age from which a file takes no more records. A record takes up disk and
	// memory for about TTL + RollAge at most. A 24th of the TTL is a good value. Default 1h.
	RollAge time.Duration
	// Logger receives events that no return value can carry: a file that cannot be removed,
	// a failed write, a file system that is not a good place for a store. Default: no
	// logging.
	Logger *slog.Logger
	// Now is the clock. It is for tests. While the store is open, only the time that passes
	// on it counts: setting the wall clock back or forward makes no record live longer or
	// shorter. Default time.Now.
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
