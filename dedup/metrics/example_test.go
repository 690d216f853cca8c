package metrics_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/metrics"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// show prints the values of a metric, as a scrape sees them.
func show(registry *prometheus.Registry, name string) {
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if v := m.GetGauge().GetValue() + m.GetCounter().GetValue(); v > 0 {
				for _, l := range m.GetLabel() {
					fmt.Printf("%s=%s ", l.GetName(), l.GetValue())
				}
				fmt.Println(name, v)
			}
		}
	}
}

// deliver delivers a message for each key.
func deliver(d *dedup.Deduplicator, keys ...dedup.Key) {
	for offset, key := range keys {
		m := &dedup.Message{Value: []byte("{}"), Position: dedup.Position{Source: "orders", Offset: int64(offset)}}
		m.Headers.SetKey(key)
		d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
	}
	if err := d.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func Example() {
	const scope, ttl = "billing", 48 * time.Hour
	registry := prometheus.NewRegistry()
	store := memstore.New(nil)

	m, err := metrics.New(registry, scope, &metrics.Options{TTL: ttl})
	if err != nil {
		log.Fatal(err)
	}
	if err := metrics.RegisterStore(registry, scope, store); err != nil {
		log.Fatal(err)
	}
	d, err := dedup.New(store, scope, dedup.HeaderKey(), &dedup.Options{TTL: ttl, Hooks: m.Hooks(dedup.Hooks{})})
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux() // for an http.Server
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	deliver(d, "order-1", "order-2", "order-1")
	show(registry, "dedup_messages_total")
	show(registry, "dedup_window_headroom_seconds")
	// Output:
	// outcome=duplicate scope=billing dedup_messages_total 1
	// outcome=processed scope=billing dedup_messages_total 2
	// scope=billing dedup_window_headroom_seconds 172800
}

// Your own hooks are called too.
func ExampleMetrics_Hooks() {
	registry := prometheus.NewRegistry()
	m, err := metrics.New(registry, "billing", nil)
	if err != nil {
		log.Fatal(err)
	}
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{
		Hooks: m.Hooks(dedup.Hooks{
			Decided: func(e dedup.Event) { fmt.Println(e.Message.Position, e.Result.Outcome) },
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	deliver(d, "order-1", "order-1")
	show(registry, "dedup_duplicates_total")
	// Output:
	// orders/0@0 processed
	// orders/0@1 duplicate
	// cause=republish scope=billing dedup_duplicates_total 1
}

// The store's figures are asked for at each scrape.
func ExampleRegisterStore() {
	registry := prometheus.NewRegistry()
	store := memstore.New(nil)
	if err := metrics.RegisterStore(registry, "billing", store); err != nil {
		log.Fatal(err)
	}
	d, err := dedup.New(store, "billing", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	deliver(d, "order-1", "order-2", "order-1")
	show(registry, "dedup_store_up")
	show(registry, "dedup_store_records")
	// Output:
	// scope=billing dedup_store_up 1
	// scope=billing dedup_store_records 2
}
