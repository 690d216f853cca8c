package boltbench

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// rawFile is the floor: a file to which records of 56 bytes are appended, claims
// of a batch and completes of the one before with one write and one fdatasync,
// and a set of hashes in memory. It has no leases, no expiry and no checksums,
// and cannot be opened again.
type rawFile struct {
	stream *work.Stream
	keys   hashSet
}

func (f *rawFile) round(_ context.Context, r *harness.Round) (err error) {
	file, err := os.Create(filepath.Join(r.Dir, "log"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	b := f.stream.Next(r.Messages)
	r.Start()
	err = f.run(file, b)
	r.Stop()
	return errors.Join(err, b.Check())
}

func (f *rawFile) run(file *os.File, b *work.Batch) error {
	var granted, before []int
	var out []byte
	for from := 0; from < len(b.Keys) || len(before) > 0; from += work.BatchSize {
		out, granted = out[:0], granted[:0]
		for _, i := range before {
			out = append(append(out, b.Keys[i][:]...), done...)
		}
		for i := from; i < min(from+work.BatchSize, len(b.Keys)); i++ {
			if f.keys.add(binary.LittleEndian.Uint64(b.Keys[i][:])) {
				out = append(append(out, b.Keys[i][:]...), claimed...)
				granted = append(granted, i)
			}
		}
		if _, err := file.Write(out); err != nil {
			return err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return err
		}
		b.Handled(len(granted))
		before = append(before[:0], granted...)
	}
	return nil
}

// hashSet is an open-addressing table of hashes that are not 0.
type hashSet struct {
	slots []uint64
	n     int
}

// add reports whether h was not there.
func (s *hashSet) add(h uint64) bool {
	if s.n*2 >= len(s.slots) {
		old := s.slots
		s.slots, s.n = make([]uint64, max(1<<16, 2*len(old))), 0
		for _, x := range old {
			if x != 0 {
				s.add(x)
			}
		}
	}
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case h:
			return false
		case 0:
			s.slots[i] = h
			s.n++
			return true
		}
	}
}
