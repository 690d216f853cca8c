package boltstore

import (
	"errors"
	"fmt"
)

// Sentinel errors. Match them with errors.Is: what is returned says more.
var (
	// ErrInUse: another process, or another Store of this one, has the directory
	// open.
	ErrInUse = errors.New("the directory is in use")
	// ErrCorrupt: a file cannot be read as it was written. The error is, or
	// wraps, a *DamageError. See Repair.
	ErrCorrupt = errors.New("damaged")
	// ErrFormat: a file was written by a newer version of this package.
	ErrFormat = errors.New("unknown format version")
	// ErrPoisoned: a write failed earlier, so nobody knows what the disk holds.
	// Close the Store; Open reads what is there. Marked by dedup.Permanent.
	ErrPoisoned = errors.New("an earlier write failed")
	// ErrFull: there is no room for new claims, by the disk or by Options.MaxBytes.
	// The error is, or wraps, a *FullError. Nothing has happened, and the store goes
	// on by itself when there is room.
	ErrFull = errors.New("no room")
	// ErrClosed: the Store is closed. Marked by dedup.Permanent.
	ErrClosed = errors.New("the store is closed")
)

// DamageError says what in which file cannot be read. It matches ErrCorrupt.
type DamageError struct {
	File     string // path
	Sequence uint64 // of the entry; 0 if it is the file itself
	Last     uint64 // of a range of entries, in the report of Repair; else as Sequence
	Offset   int64  // of the entry in the file, in bytes; -1 if unknown
	Cause    error

	repaired bool // there is nothing to be done about it any more
}

func (e *DamageError) Error() string {
	where := ""
	if e.Sequence != 0 {
		where = fmt.Sprintf(" at sequence %d", e.Sequence)
	}
	if e.Last > e.Sequence {
		where += fmt.Sprintf(" to %d", e.Last)
	}
	if e.Offset >= 0 {
		where += fmt.Sprintf(" (offset %d)", e.Offset)
	}
	what := fmt.Sprintf("boltstore: %s%s: %v: %v", e.File, where, ErrCorrupt, e.Cause)
	if e.repaired {
		return what
	}
	return what + ": restore the directory from a backup, or run boltstore.Repair on it, or move it away and start with an empty one (older messages then count as stale)"
}

// Unwrap returns ErrCorrupt and the cause.
func (e *DamageError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }

// FullError says what has no room. It matches ErrFull.
type FullError struct {
	Dir string // of the store
	// By Options.MaxBytes; zero if it is the disk that is full.
	MaxBytes int64
	Bytes    int64 // that the store takes
	// By the disk.
	Free  int64 // bytes on it; 0 if unknown
	Need  int64 // bytes that are missing
	Cause error // what the system said, if it was asked
}

func (e *FullError) Error() string {
	const mib = 1 << 20
	if e.MaxBytes > 0 {
		return fmt.Sprintf("boltstore: %s: %v for new claims: the store takes %.1f MiB of the %.1f MiB that MaxBytes allows, and the rest is for what runs: raise MaxBytes, or shorten the TTL; it goes on by itself when records expire",
			e.Dir, ErrFull, float64(e.Bytes)/mib, float64(e.MaxBytes)/mib)
	}
	cause := ""
	if e.Cause != nil {
		cause = fmt.Sprintf(" (%v)", e.Cause)
	}
	return fmt.Sprintf("boltstore: %s: %v on its disk: %.1f MiB are free, %.1f MiB are needed%s: free space there; the store goes on by itself",
		e.Dir, ErrFull, float64(e.Free)/mib, float64(e.Need)/mib, cause)
}

// Unwrap returns ErrFull and the cause.
func (e *FullError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrFull}
	}
	return []error{ErrFull, e.Cause}
}
