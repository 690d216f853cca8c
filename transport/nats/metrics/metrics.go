package natsmetrics

import (
	"github.com/prometheus/client_golang/prometheus"

	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

// New returns a collector of the figures that [natstransport.Consumer.Status] returns. A registry
// takes one collector for each durable consumer.
func New(c *natstransport.Consumer) prometheus.Collector {
	st := c.Status()
	labels := prometheus.Labels{"stream": st.Stream, "consumer": st.Consumer}
	metric := func(kind prometheus.ValueType, name, help string, value func(natstransport.Status) float64) figure {
		return figure{prometheus.NewDesc("dedup_nats_"+name, help, nil, labels), kind, value}
	}
	type status = natstransport.Status
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	return &collector{consumer: c, always: []figure{
		metric(gauge, "bound", "1 while this member is bound to the durable consumer.", func(s status) float64 { return float64(s.Assigned) }),
		metric(gauge, "failing", "1 while the connection, the consumer or pulling from it fails.", func(s status) float64 { return float64(min(len(s.Failing), 1)) }),
		metric(gauge, "halted", "1 if it has halted: an operator must look.", func(s status) float64 { return float64(s.Halted) }),
		metric(gauge, "in_hand", "Messages delivered to this member and not answered.", func(s status) float64 { return float64(s.InHand) }),
		metric(counter, "redeliveries_total", "Deliveries of messages that were delivered before.", func(s status) float64 { return float64(s.Redelivered) }),
		metric(counter, "stale_deliveries_total", "Deliveries refused, because they waited here for longer than AckWait.", func(s status) float64 { return float64(s.StaleDeliveries) }),
		metric(counter, "ack_failures_total", "Answers not sent, or not confirmed.", func(s status) float64 { return float64(s.AckFailures) }),
		metric(counter, "max_deliveries_total", "Messages that the server gave up on, to any member.", func(s status) float64 { return float64(s.MaxDeliveries) }),
		metric(counter, "binds_total", "Times that this member was bound.", func(s status) float64 { return float64(s.Binds) }),
	}, bound: []figure{
		metric(gauge, "pending", "Messages that the durable consumer has not delivered yet.", func(s status) float64 { return float64(s.Pending) }),
		metric(gauge, "ack_pending", "Messages delivered and not acknowledged, of all members.", func(s status) float64 { return float64(s.AckPending) }),
		metric(gauge, "ack_pending_limit", "The bound of the durable consumer on that; -1: none.", func(s status) float64 { return float64(s.MaxAckPending) }),
	}}
}

// collector makes its metrics at each scrape.
type collector struct {
	consumer *natstransport.Consumer
	always   []figure
	bound    []figure // absent until the durable consumer was found
}

type figure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(natstransport.Status) float64
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range append(c.always[:len(c.always):len(c.always)], c.bound...) {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	st := c.consumer.Status()
	collect := func(figures []figure) {
		for _, f := range figures {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(st))
		}
	}
	collect(c.always)
	if st.MaxAckPending != 0 { // 0 means unknown: a server never has 0
		collect(c.bound)
	}
}
