package kafkametrics_test

import (
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
	kafkametrics "github.com/oncequeue/oncequeue/transport/kafka/metrics"
)

// A registry takes the collector of each Consumer. The metrics of partitions appear when the Consumer
// runs and has some.
func ExampleNewCollector() {
	consumer, err := kafkatransport.NewConsumer([]string{"localhost:9092"}, "shipping", []string{"orders"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(kafkametrics.NewCollector(consumer)); err != nil {
		log.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		fmt.Println(f.GetName(), f.GetMetric()[0].GetCounter().GetValue())
	}
	// Output:
	// dedup_kafka_commits_total 0
	// dedup_kafka_drains_total 0
	// dedup_kafka_late_completions_total 0
	// dedup_kafka_rebalances_total 0
	// dedup_kafka_skipped_offsets_total 0
}
