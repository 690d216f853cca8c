package memstore_test

import (
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, clock storetest.Clock) driver.Store {
		return memstore.New(&memstore.Options{Now: clock.Now})
	})
}
