package metrics_test

import (
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
	d, err := dedup.New(store, scope, dedup.HeaderKey(), &dedup.Options{
		TTL: ttl,
		Hooks: m.Hooks(dedup.Hooks{ // and your own
			LeaseLost: func(e dedup.Event) { log.Printf("lost the claim at %v", e.Message.Position) },
		}),
	})
	if err != nil {
		log.Fatal(err)
	}
	_ = d // hand it to a consumer
	http.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "dedup_window_headroom_seconds" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: dedup_window_headroom_seconds 172800
}
