package boltstore

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) dedup.Store {
		return openTending(t, t.TempDir(), clock, &Options{})
	})
}

func openTending(t *testing.T, dir string, clock storetest.Clock, o *Options) dedup.Store {
	t.Helper()
	o.Now = clock.Now
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}
