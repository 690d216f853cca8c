package storetest_test

import (
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// The test of a store calls Run.
func ExampleRun() {
	_ = func(t *testing.T) { // func TestStore(t *testing.T)
		storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
			return memstore.New(&memstore.Options{Now: clock.Now})
		})
	}
}
