package boltstore

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Keys that must last are worked on while all around them files roll and are
// dropped: no answer may show that.
func TestServesWhileFilesAreDropped(t *testing.T) {
	s, err := openWith(t.TempDir(), &Options{RollBytes: minRollBytes, RollAge: 10 * time.Millisecond}, hashID)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	const workers, rounds = 4, 30
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() {
			if err := workWhileDropping(t, s, w, rounds); err != nil {
				t.Errorf("worker %d: %v", w, err)
			}
		})
	}
	finished := make(chan struct{})
	go func() { running.Wait(); close(finished) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for serving := true; serving; {
		if err := s.tend(); err != nil {
			t.Fatalf("tend: %v", err)
		}
		n := 0
		for _, err := range s.Records(t.Context()) {
			if n++; err != nil {
				t.Fatalf("Records: %v", err)
			}
		}
		select {
		case <-finished:
			serving = false
		case <-tick.C:
		}
	}
	s.mu.Lock()
	oldest := s.files[0].number
	s.mu.Unlock()
	if oldest < 3 {
		t.Errorf("the oldest file is number %d, want some dropped", oldest)
	}
}

func shortLived(name string, n int) []driver.Op {
	ops := make([]driver.Op, n)
	for i := range ops {
		ops[i] = complete1(key(name, i), 1, time.Millisecond)
	}
	return ops
}

func workWhileDropping(t *testing.T, s *Store, worker, rounds int) error {
	name := fmt.Sprint("worker ", worker)
	held, done := key(name+" held", 0), key(name+" done", 0)
	one := func(op driver.Op, want driver.Status) (driver.Record, error) {
		replies, err := s.Apply(t.Context(), []driver.Op{op})
		switch {
		case err != nil:
			return driver.Record{}, err
		case replies[0].Err != nil:
			return driver.Record{}, replies[0].Err
		case replies[0].Status != want:
			return driver.Record{}, fmt.Errorf("%v: got %v, want %v (record %+v)", op.Kind, replies[0].Status, want, replies[0].Record)
		}
		return replies[0].Record, nil
	}
	// All at once: few of the records in a file may last, or it is kept for them.
	first := append(shortLived(name, 300), complete1(done, 1, day), claim1(held, 1))
	replies, err := s.Apply(t.Context(), first)
	if err != nil {
		return err
	}
	h := replies[len(replies)-1].Record
	for n := range rounds {
		_, err := s.Apply(t.Context(), shortLived(fmt.Sprint(name, " round ", n), 200))
		_, err2 := one(extend1(held, h.Token), driver.StatusOK)
		_, err3 := one(claim1(held, 2), driver.StatusHeld)
		_, err4 := one(claim1(done, 1), driver.StatusDone)
		// And a key that changes its place while it may be carried forward.
		moving := key(name+" moving", n/3)
		var err5 error
		switch n % 3 {
		case 0:
			h, err := one(claim1(moving, 1), driver.StatusGranted)
			_, err2 := one(release1(moving, h.Token), driver.StatusOK)
			err5 = errors.Join(err, err2)
		case 1:
			h, err := one(claim1(moving, 2), driver.StatusGranted)
			_, err2 := one(complete1(moving, h.Token, day), driver.StatusOK)
			err5 = errors.Join(err, err2)
		case 2:
			_, err := one(claim1(moving, 3), driver.StatusDone)
			err5 = errors.Join(err, s.Forget(t.Context(), []driver.ID{moving}))
		}
		if err := errors.Join(err, err2, err3, err4, err5); err != nil {
			return fmt.Errorf("round %d: %w", n, err)
		}
	}
	return nil
}

// Whoever reads a file when it is dropped finishes reading.
func TestReadersOutliveTheirFile(t *testing.T) {
	b := newBench(t, Options{})
	closeStore(t, b.Store)
	b.hash = func(driver.ID) uint64 { return 42 } // one part of the index
	b.open()
	b.fill("short", 200, time.Hour)
	b.nextFile()
	path := b.files[0].path
	seen := 0
	for r, err := range b.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen != 1 {
			continue
		}
		if err := b.Forget(t.Context(), []driver.ID{r.ID}); err != nil {
			t.Fatal(err)
		}
		for i := range 199 {
			if id := key("short", i); id != r.ID && i%2 == 0 {
				b.apply(complete1(id, 1, day)) // no change: it is recorded
			}
		}
		if err := b.asWriter(func() error {
			f := b.files[0]
			found, _, err := b.remains(nil, f, f.first)
			return errors.Join(err, b.move(found))
		}); err != nil {
			t.Fatal(err)
		}
		if err := b.drop(b.files[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("the file is still there: %v", err)
		}
	}
	if seen != 200 {
		t.Errorf("got %d records, want all 200 of when the reading began", seen)
	}
	b.lookup(key("short", 7), driver.StateDone)
}

// A file in which nothing is alive goes although nobody writes any more.
func TestIdleStoreEmptiesItself(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 100, day)
	b.clock.advance(2 * time.Hour)
	b.tend()
	b.clock.advance(day)
	b.tend()
	st, err := b.Stats(t.Context())
	if err != nil || st.Records != 0 || len(b.numbers()) != 1 {
		t.Errorf("got %d records in files %v, %v, want an empty one", st.Records, b.numbers(), err)
	}
	files := b.numbers()
	b.clock.advance(30 * day)
	b.tend()
	if got := b.numbers(); len(got) != 1 || got[0] != files[0] {
		t.Errorf("files: got %v, want %v: an empty file does not roll", got, files)
	}
}

// Rolling by size.
func TestRollsBySize(t *testing.T) {
	b := newBench(t, Options{RollBytes: 64 << 10})
	for i := range 20 {
		b.fill(fmt.Sprint(i), 100, day)
	}
	if n := len(b.numbers()); n < 2 || n > 6 {
		t.Errorf("2000 records: got %d files of about 64 KiB, want a few", n)
	}
	b.crash()
	for i := range 20 {
		b.lookup(key(fmt.Sprint(i), 99), driver.StateDone)
	}
}
