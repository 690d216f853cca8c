//go:build real

package boltstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// fileSystem is the file system that the store loses its power with.
func fileSystem() string {
	if kind := os.Getenv("BOLTSTORE_FILE_SYSTEM"); kind != "" {
		return kind
	}
	return "ext4"
}

// TestRealPowerCut takes the power from a file system under load, time and again,
// and wants all that was acknowledged to be there afterwards. The ledger is in the
// memory of this process, which loses nothing.
func TestRealPowerCut(t *testing.T) {
	onDisk(t, func(t *testing.T, disk *disk) {
		cuts := many(t, "BOLTSTORE_POWER_CUTS", 100)
		dir := filepath.Join(disk.path, "store")
		l := newLedger()
		o, clock := crashOptions()
		for run := range cuts {
			disk.mount(t)
			checkFiles(t, dir)
			s, err := Open(dir, o)
			if err != nil {
				t.Fatalf("cut %d: %v", run, err)
			}
			l.audit(t, s, run)
			cutUnderLoad(t, disk, s, clock, run+1, l)
			disk.unmount(t)
			if t.Failed() {
				return
			}
			progress(t, run+1, cuts, l)
		}
		disk.mount(t)
		oldest := checkFiles(t, dir)
		s, err := Open(dir, o)
		if err != nil {
			t.Fatalf("after the last cut: %v", err)
		}
		l.audit(t, s, cuts)
		closeStore(t, s)
		disk.unmount(t)
		l.wantLoad(t, cuts, oldest)
	})
}

// TestRealPowerCutWithoutSync is the control: a store that does not sync loses what
// it acknowledged, and the ledger shows it.
func TestRealPowerCutWithoutSync(t *testing.T) {
	onDisk(t, func(t *testing.T, disk *disk) {
		const cuts = 10
		caught := 0
		for run := range cuts {
			disk.mount(t)
			dir := filepath.Join(disk.path, fmt.Sprint("store ", run))
			o, clock := crashOptions()
			s, err := Open(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.asWriter(func() error {
				s.commit = func(tx *bolt.Tx) error { tx.DB().NoSync = true; return tx.Commit() }
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			l := newLedger()
			cutUnderLoad(t, disk, s, clock, run, l)
			disk.unmount(t)
			disk.mount(t)
			if lost, err := lostFrom(t, dir, l); lost > 0 || err != nil {
				caught++
			}
			if err := os.RemoveAll(dir); err != nil { // the disk is small
				t.Fatal(err)
			}
			disk.unmount(t)
		}
		t.Logf("%d of %d power cuts lost what a store without fsync acknowledged", caught, cuts)
		if caught < cuts/2 {
			t.Errorf("a store that does not sync lost something in %d of %d power cuts: this harness would not find that", caught, cuts)
		}
	})
}

// lostFrom returns how many keys of the ledger the store does not know as it should,
// or why it does not open.
func lostFrom(t *testing.T, dir string, l *ledger) (lost int, err error) {
	t.Helper()
	o, _ := crashOptions()
	s, err := Open(dir, o)
	if err != nil {
		return 0, err
	}
	defer closeStore(t, s)
	for g, f := range l.groups {
		for i := range groupSize {
			r, err := s.Lookup(t.Context(), g.id(i))
			if err != nil {
				return lost, err
			}
			if f.check(i, r) != nil {
				lost++
			}
		}
	}
	return lost, nil
}

// cutUnderLoad puts s under load, cuts the power after a random number of facts,
// and closes s.
func cutUnderLoad(t *testing.T, disk *disk, s *Store, clock *testClock, run int, l *ledger) {
	t.Helper()
	last := rand.Int64N(120) + 5
	var told atomic.Int64
	err := load(s, clock, run, func(f fact) error {
		// What is acknowledged now was so before the cut, or has outlived it.
		l.write(f)
		if told.Add(1) == last {
			return disk.cut()
		}
		return nil
	})
	if err == nil || errors.Is(err, errAnswer) || told.Load() < last {
		t.Errorf("cut %d: the load ended by itself: %v", run, err)
	}
	_ = s.Close() // on a disk that is gone
}

// checkFiles has bbolt check every file, and returns the number of the oldest.
func checkFiles(t *testing.T, dir string) uint64 {
	t.Helper()
	numbers, _, err := listFiles(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		db, err := bolt.Open(filepath.Join(dir, fileName(n)), 0o600, &bolt.Options{ReadOnly: true, NoFreelistSync: true})
		if err != nil {
			t.Fatalf("file %d: %v", n, err)
		}
		err = db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("file %d: bbolt's check: %v", n, err)
			}
			return nil
		})
		if err = errors.Join(err, db.Close()); err != nil {
			t.Errorf("file %d: %v", n, err)
		}
	}
	return numbers[0]
}
