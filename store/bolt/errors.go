package boltstore

import (
	"errors"
	"fmt"
)

// Errors to match with errors.Is. The errors that this package returns wrap them and say
// more.
var (
	// ErrInUse means that another process, or another Store of this process, has the
	// directory open.
	ErrInUse = errors.New("the directory is in use")
	// ErrCorrupt means that a file cannot be read as it was written. The error is, or
	// wraps, a *DamageError. See Repair.
	ErrCorrupt = errors.New("damaged")
	// ErrFormat means that a newer version of this package wrote the file.
	ErrFormat = errors.New("unknown format version")
	// ErrPoisoned means that a write failed earlier, so nobody knows what the disk holds.
	// Close the Store. A new Open reads what is there. It is marked by driver.Permanent.
	ErrPoisoned = errors.New("an earlier write failed")
	// ErrFull means that there is no room for new claims, because of the disk or of
	// Options.MaxBytes. The error is, or wraps, a *FullError. The refused operations had no
	// effect. The store grants claims again by itself when there is room.
	ErrFull = errors.New("no room")
	// ErrClosed means that the Store is closed. It is marked by driver.Permanent.
	ErrClosed = errors.New("the store is closed")
)

// DamageError says which part of which file cannot be read. It matches [ErrCorrupt].
type DamageError struct {
	File     string // path of the file
	Sequence uint64 // sequence number of the damaged entry; 0 if the file itself is damaged
	Last     uint64 // last of a range of entries, in the report of Repair; else equal to Sequence
	Offset   int64  // position of the entry in the file, in bytes; -1 if unknown
	Cause    error  // why it cannot be read

	repaired bool // there is nothing to be done about it any more
}

// Error names the file, the place, the cause and the possible remedies.
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

// Unwrap returns [ErrCorrupt] and Cause.
func (e *DamageError) Unwrap() []error { return []error{ErrCorrupt, e.Cause} }

// FullError says why there is no room. It matches [ErrFull].
type FullError struct {
	Dir string // directory of the store
	// MaxBytes and Bytes are set if Options.MaxBytes is the reason; zero if the disk is full.
	MaxBytes int64 // Options.MaxBytes
	Bytes    int64 // bytes that the store takes
	// Free, Need and Cause are set if the disk is full.
	Free  int64 // free bytes on the disk; 0 if unknown
	Need  int64 // bytes that are needed
	Cause error // the system's error; nil if the store did not try to take the room
}

// Error names the directory, the figures and the possible remedies.
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

// Unwrap returns [ErrFull] and, if there is one, Cause.
func (e *FullError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrFull}
	}
	return []error{ErrFull, e.Cause}
}
