package natsmetrics_test

import (
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
	natsmetrics "github.com/oncequeue/oncequeue/transport/nats/metrics"
)

// A registry takes the collector of each durable consumer.
func ExampleNew() {
	server, err := brokertest.StartNATS(nil) // a server in this process
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	js, err := server.Connect()
	if err != nil {
		log.Fatal(err)
	}
	defer js.Conn().Close()
	consumer, err := natstransport.NewConsumer(js, "ORDERS", "shipping", nil)
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(natsmetrics.New(consumer)); err != nil {
		log.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "dedup_nats_bound" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: dedup_nats_bound 0
}
