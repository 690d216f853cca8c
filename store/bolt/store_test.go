package boltstore

import (
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
)

// children are what this test binary does instead of its tests when the environment
// variable names a directory.
var children = map[string]func(dir string){workerDir: workerMain}

func TestMain(m *testing.M) {
	for variable, main := range children {
		if dir := os.Getenv(variable); dir != "" {
			main(dir)
		}
	}
	goleak.VerifyTestMain(m)
}

// The suite runs on a store as users have it, and on one in which everything
// that is rare happens all the time: files roll and are dropped whenever the
// time moves, and most keys share their hash with others.
var variants = []struct {
	name string
	open func(t *testing.T, dir string, clock storetest.Clock) *Store
}{
	{"default", func(t *testing.T, dir string, clock storetest.Clock) *Store {
		s, err := Open(dir, &Options{Now: clock.Now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}},
	{"rolling", func(t *testing.T, dir string, clock storetest.Clock) *Store {
		s, err := openWith(dir, &Options{Now: clock.Now, RollBytes: minRollBytes, RollAge: time.Millisecond}, fewHashes)
		if err != nil {
			t.Fatal(err)
		}
		clock.OnAdvance(func(time.Time) {
			if err := s.tend(); err != nil && !errors.Is(err, errStopped) && !errors.Is(err, ErrClosed) {
				t.Errorf("tend: %v", err)
			}
		})
		return s
	}},
}

func fewHashes(id driver.ID) uint64 { return hashID(id) & 31 }

func TestStore(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
				s := v.open(t, t.TempDir(), clock)
				t.Cleanup(func() { closeStore(t, s) })
				return s
			})
		})
	}
}

func TestDurable(t *testing.T) {
	t.Parallel()
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			storetest.RunDurable(t, func(t *testing.T, dir string, clock storetest.Clock) driver.Store {
				return v.open(t, dir, clock)
			})
		})
	}
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
