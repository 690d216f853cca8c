package boltstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// A disk that is full must not stop what runs already: a handler that has
// finished has had its effect. So the newest file owns room on the disk beyond
// what is in use, and is given more before a claim is taken in, never while one
// is settled:
//
//	in use | reserve: for what settles claims | given ahead, one reserve at most
//
// A claim is refused when the reserve cannot be kept behind it. Carrying records
// out of an expired file may take half the reserve, as it ends in giving back
// more; completes, parks, releases and what is forgotten may take it all.
const (
	minReserve = 4 << 20 // more than any batch takes
	maxReserve = 16 << 20
)

// reserveOf returns the size of the reserve of a store.
func reserveOf(rollBytes int64) int64 { return min(max(rollBytes/16, minReserve), maxReserve) }

// space is the disk that a store is on.
type space struct {
	dir      string
	reserve  int64
	allocate func(f *os.File, offset, n int64) error // errors.ErrUnsupported where room cannot be taken ahead
	free     func(dir string) (int64, error)
}

func newSpace(dir string, o *Options) space {
	return space{dir: dir, reserve: reserveOf(o.RollBytes), allocate: allocate, free: freeBytes}
}

const (
	// What an op or a record takes, its result and source apart.
	entryRoom = 192
	// What bbolt adds to each value in its page: a header and the key.
	elementRoom = 24
)

// roomFor is an upper bound for what entries of so many bytes take in a file. A
// node may be up to a page short of full, any two neighbours fill more than one,
// and some pages beside are written again.
func roomFor(bytes int) int64 { return 3*int64(bytes) + 16*int64(os.Getpagesize()) }

func roomForOps(ops []driver.Op) int64 {
	n := 0
	for i := range ops {
		n += entryRoom + len(ops[i].Result) + 2*len(ops[i].Position.Source)
	}
	return roomFor(n)
}

func roomForValues(values []value) int64 {
	n := 0
	for _, v := range values {
		n += elementRoom + len(v.bytes)
	}
	return roomFor(n)
}

// newFileRoom is what a new file is given. It is less than what the one before it
// gives back, and enough to carry records out of an expired one.
func (p *space) newFileRoom() int64 { return roomFor(entryRoom) + p.reserve*3/4 }

// secure makes sure that f can be written up to the offset end, and takes some
// room ahead. What may be refused does not take the last from others on the disk.
func (p *space) secure(f *file, end int64, refusable bool) error {
	have := max(f.allocated.Load(), f.size.Load())
	missing := end - have
	if missing <= 0 {
		return nil
	}
	ahead := p.reserve
	if free, err := p.free(p.dir); err != nil || free < missing+ahead {
		if ahead = 0; refusable && err == nil && free < missing {
			return p.full(missing, nil)
		}
	}
	switch err := p.allocate(f.handle, have, missing+ahead); {
	case err == nil:
		f.allocated.Store(end + ahead)
		return nil
	case errors.Is(err, errors.ErrUnsupported):
		return nil
	case noSpace(err):
		return p.full(missing, err)
	default:
		return fmt.Errorf("boltstore: allocate room in %s: %w: look to its disk", f.path, err)
	}
}

// trim gives what f owns beyond what is in use back to the disk. Only the writer
// may do so.
func (p *space) trim(f *file) error {
	var size int64
	err := guarded(func() error {
		return f.db.View(func(tx *bolt.Tx) error {
			size = tx.Size()
			return nil
		})
	})
	if err != nil {
		return err
	}
	f.allocated.Store(0)
	f.size.Store(size)
	return f.handle.Truncate(size)
}

// handOver gives back what f owns if that makes room for a new file, and reports
// whether it did.
func (p *space) handOver(f *file) bool {
	free, err := p.free(p.dir)
	tail := f.allocated.Load() - f.size.Load()
	return err == nil && tail > 0 && free+tail >= p.newFileRoom() && p.trim(f) == nil
}

func (p *space) full(need int64, cause error) error {
	free, err := p.free(p.dir)
	if err != nil {
		free = 0
	}
	return &FullError{Dir: p.dir, Free: free, Need: need, Cause: cause}
}

// noSpace reports whether err says that a disk, or a user's share of it, is full.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// unwritten reports whether a transaction that failed for want of space left
// everything as it was: nothing but a write has failed, no fsync, and no meta page
// is of the transaction.
func unwritten(f *file, txid int, cause error) bool {
	var failed *fs.PathError
	if !noSpace(cause) || !errors.As(cause, &failed) || failed.Op != "write" {
		return false
	}
	last, err := lastTx(f.path, f.db.Info().PageSize)
	return err == nil && last < uint64(txid)
}

// refusal says why no new claim can be taken in, if ops has one that may be.
func (s *Store) refusal(ops []driver.Op) error {
	for i := range ops {
		if ops[i].Kind != driver.OpClaim {
			continue
		}
		need := roomForOps(ops)
		if limit, bytes := s.limit(), s.bytes(); limit > 0 && bytes+need > limit {
			return &FullError{Dir: s.dir, MaxBytes: s.options.MaxBytes, Bytes: bytes}
		}
		f := s.newest()
		return s.space.secure(f, f.size.Load()+need+s.space.reserve, true)
	}
	return nil
}

// spare says why the records of changes cannot be carried to the newest file.
func (s *Store) spare(changes []*change) error {
	n := 0
	for _, c := range changes {
		n += entryRoom + len(c.record.Result) + 2*len(c.record.First.Source)
	}
	f := s.newest()
	return s.space.secure(f, f.size.Load()+roomFor(n)+s.space.reserve/2, true)
}

// limit is the size at which MaxBytes refuses claims; 0: none. What the newest
// file owns beyond what is in use is part of MaxBytes.
func (s *Store) limit() int64 {
	if s.options.MaxBytes == 0 {
		return 0
	}
	return s.options.MaxBytes - 2*s.space.reserve
}

// bytes returns how many are in use.
func (s *Store) bytes() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		n += f.size.Load()
	}
	return n
}
