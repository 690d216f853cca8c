package metrics

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/golden"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// talkative is a store that tells every figure there is.
type talkative struct{ *memstore.Store }

func (talkative) Stats(context.Context) (driver.Stats, error) {
	then := time.Unix(1_700_000_000, 0)
	return driver.Stats{Limit: 1, Oldest: then, Vouch: driver.Vouch{Since: then}}, nil
}

// The metrics change only with a word in the changelog.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := New(reg, "orders", nil); err != nil {
		t.Fatal(err)
	}
	if err := RegisterStore(reg, "orders", talkative{newStore()}); err != nil {
		t.Fatal(err)
	}
	golden.Metrics(t, "testdata/metrics.txt", reg, newFamilies(), newStores())
}
