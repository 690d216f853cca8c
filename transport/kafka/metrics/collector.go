// Package kafkametrics exports figures of a [kafkatransport.Consumer] to Prometheus.
//
//	err := registry.Register(kafkametrics.NewCollector(consumer))
//
// Every metric has the labels group and client. client is Config.ClientID: if a process has
// several members of one group, give each another ClientID. The metrics of partitions also have
// the labels topic and partition. They exist for the partitions that this member holds.
//
//	metric                                      type     meaning
//	dedup_kafka_lag                             gauge    number of offsets between the watermark and the end of the log
//	dedup_kafka_watermark_offset                gauge    all messages before this offset are settled
//	dedup_kafka_committed_offset                gauge    last committed offset; absent if there is none
//	dedup_kafka_in_flight                       gauge    messages that were fetched and are not settled
//	dedup_kafka_in_flight_bytes                 gauge    bytes of their keys, values and headers
//	dedup_kafka_oldest_incomplete_age_seconds   gauge    time since the oldest of them was fetched; 0 if there is none. A
//	                                                     growing value means that one message holds back the commits
//	dedup_kafka_waiting                         gauge    1 if the partition is not fetched any more until messages are settled,
//	                                                     and the oldest was fetched more than 5s ago
//	dedup_kafka_halted                          gauge    1 if the partition has halted: an operator must look
//	dedup_kafka_rebalances_total                counter  assignments received, empty ones included
//	dedup_kafka_drains_total                    counter  assignments given up
//	dedup_kafka_commits_total                   counter  commits that the group accepted
//	dedup_kafka_late_completions_total          counter  messages settled after their partition was given up: they are recorded
//	                                                     and not committed, and the next owner answers them from the record
//	dedup_kafka_skipped_offsets_total           counter  offsets skipped because of Config.OutOfRange or Config.StartOffset
package kafkametrics

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// NewCollector returns a collector of the figures that [kafkatransport.Consumer.Stats] returns.
// A scrape asks no broker.
func NewCollector(c *kafkatransport.Consumer) prometheus.Collector {
	s := c.Stats()
	labels := prometheus.Labels{"group": s.Group, "client": s.ClientID}
	return collector{c, describe(labels)}
}

type collector struct {
	consumer *kafkatransport.Consumer
	metrics  []metric
}

// metric is a metric of the table above. One of its two functions is set.
type metric struct {
	desc        *prometheus.Desc
	ofConsumer  func(kafkatransport.Stats) int64
	ofPartition func(kafkatransport.PartitionStats) (value float64, known bool)
}

func describe(labels prometheus.Labels) []metric {
	counter := func(name, help string, f func(kafkatransport.Stats) int64) metric {
		return metric{desc: prometheus.NewDesc("dedup_kafka_"+name, help, nil, labels), ofConsumer: f}
	}
	gauge := func(name, help string, f func(kafkatransport.PartitionStats) (float64, bool)) metric {
		return metric{desc: prometheus.NewDesc("dedup_kafka_"+name, help, []string{"topic", "partition"}, labels), ofPartition: f}
	}
	type (
		stats     = kafkatransport.Stats
		partition = kafkatransport.PartitionStats
	)
	return []metric{
		counter("rebalances_total", "Assignments received, empty ones included.", func(s stats) int64 { return s.Rebalances }),
		counter("drains_total", "Assignments given up.", func(s stats) int64 { return s.Drains }),
		counter("commits_total", "Commits that the group took.", func(s stats) int64 { return s.Commits }),
		counter("late_completions_total", "Messages settled when their partition was given up already.", func(s stats) int64 { return s.Late }),
		counter("skipped_offsets_total", "Offsets skipped because of OutOfRange or StartOffset.", func(s stats) int64 { return s.Skipped }),
		gauge("lag", "Offsets that are not settled yet, to the end of the log.", func(p partition) (float64, bool) { return float64(p.Lag()), p.Lag() >= 0 }),
		gauge("watermark_offset", "Offset up to which, itself excluded, all is settled.", func(p partition) (float64, bool) { return float64(p.Watermark), p.Watermark >= 0 }),
		gauge("committed_offset", "Last committed offset.", func(p partition) (float64, bool) { return float64(p.Committed), p.Committed >= 0 }),
		gauge("in_flight", "Messages fetched and not settled.", func(p partition) (float64, bool) { return float64(p.InFlight), true }),
		gauge("in_flight_bytes", "Keys, values and headers of the messages in flight.", func(p partition) (float64, bool) { return float64(p.InFlightBytes), true }),
		gauge("oldest_incomplete_age_seconds", "Since when the oldest message in flight is in hand.", func(p partition) (float64, bool) {
			if p.Oldest.IsZero() {
				return 0, true
			}
			return time.Since(p.Oldest).Seconds(), true
		}),
		gauge("waiting", "1 if the partition is not fetched until its oldest message is settled.", func(p partition) (float64, bool) { return one(p.Waiting), true }),
		gauge("halted", "1 if the partition has halted.", func(p partition) (float64, bool) { return one(p.Halted), true }),
	}
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.consumer.Stats()
	for _, m := range c.metrics {
		if m.ofConsumer != nil {
			ch <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(m.ofConsumer(s)))
			continue
		}
		for _, p := range s.Partitions {
			if value, known := m.ofPartition(p); known {
				ch <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, value, p.Topic, strconv.Itoa(int(p.Partition)))
			}
		}
	}
}
