package metrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// statsTimeout is how long a scrape waits for all stores together.
const statsTimeout = 2 * time.Second

// RegisterStore exports the figures of a store. Each scrape calls Stats of the store.
//
// scope is the scope of the Deduplicator. If several scopes share the store, use any name for the
// store. A second store of the same scope is an error. Close the store after the last scrape: a
// closed store counts as not up.
func RegisterStore(reg prometheus.Registerer, scope string, store driver.Inspector) error {
	switch {
	case reg == nil:
		return errNoRegistry
	case scope == "":
		return errNoScope
	case store == nil:
		return errors.New("metrics: RegisterStore needs a store that tells its figures: a dedup.Inspector")
	}
	s, err := shared(reg, newStores())
	if err != nil {
		return err
	}
	return s.add(scope, store)
}

// stores collects the figures of all stores of a registry.
type stores struct {
	up, records, bytes, limit, oldest, vouched, changes *prometheus.Desc

	mu      sync.Mutex
	byScope map[string]driver.Inspector
}

func newStores() *stores {
	gauge := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{labelScope}, nil)
	}
	return &stores{
		byScope: make(map[string]driver.Inspector),
		up:      gauge("dedup_store_up", "1 if the store told its figures."),
		records: gauge("dedup_store_records", "Records remembered, expired ones not yet dropped included."),
		bytes:   gauge("dedup_store_bytes", "Size of the store."),
		limit:   gauge("dedup_store_limit_bytes", "Size at which the store refuses new claims."),
		oldest:  gauge("dedup_store_oldest_timestamp_seconds", "When the oldest data still kept was written."),
		vouched: gauge("dedup_store_vouched_timestamp_seconds", "Since when the memory of the store is complete."),
		changes: gauge("dedup_store_changes_total", "Times that a server of the store was replaced, restarted or added since its data began."),
	}
}

func (s *stores) add(scope string, store driver.Inspector) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byScope[scope] != nil {
		return fmt.Errorf("metrics: scope %q has a store already; give the second another name", scope)
	}
	if _, err := prometheus.NewConstMetric(s.up, prometheus.GaugeValue, 0, scope); err != nil {
		return fmt.Errorf("metrics: scope %q cannot be a label: %w", scope, err)
	}
	s.byScope[scope] = store
	return nil
}

// Describe implements prometheus.Collector.
func (s *stores) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{s.up, s.records, s.bytes, s.limit, s.oldest, s.vouched, s.changes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *stores) Collect(ch chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	for scope, store := range s.byScope {
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, scope)
		}
		stats, err := store.Stats(ctx)
		if err != nil {
			gauge(s.up, 0)
			continue
		}
		gauge(s.up, 1)
		gauge(s.records, float64(stats.Records))
		gauge(s.bytes, float64(stats.Bytes))
		if stats.Limit > 0 {
			gauge(s.limit, float64(stats.Limit))
		}
		if !stats.Oldest.IsZero() {
			gauge(s.oldest, seconds(stats.Oldest))
		}
		if !stats.Vouch.Since.IsZero() {
			gauge(s.vouched, seconds(stats.Vouch.Since))
		}
		ch <- prometheus.MustNewConstMetric(s.changes, prometheus.CounterValue, float64(stats.Changes), scope)
	}
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
