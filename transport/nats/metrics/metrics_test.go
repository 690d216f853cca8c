package natsmetrics_test

import (
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/golden"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
	natsmetrics "github.com/oncequeue/oncequeue/transport/nats/metrics"
)

func TestMetrics(t *testing.T) {
	js, err := brokertest.NewNATS(t, nil).Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer js.Conn().Close()
	c, err := natstransport.NewConsumer(js, "S", "c", nil)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Ensure(t.Context(), jetstream.StreamConfig{Subjects: []string{"s.>"}}, jetstream.ConsumerConfig{MaxAckPending: 77})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	if err := reg.Register(natsmetrics.New(c)); err != nil {
		t.Fatal(err)
	}
	if err := reg.Register(natsmetrics.New(c)); err == nil {
		t.Error("the registry took the same consumer twice")
	}
	want(t, reg, "dedup_nats_bound 0", "dedup_nats_binds_total 0")
	if n, err := testutil.GatherAndCount(reg, "dedup_nats_ack_pending"); n != 0 || err != nil {
		t.Errorf("outside Run: got %d of dedup_nats_ack_pending, %v, want none", n, err)
	}

	d := transporttest.NewDeduplicator(t, memstore.New(nil), nil)
	began, release := make(chan struct{}), make(chan struct{})
	r := transporttest.Start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			close(began)
			<-release
			return nil, nil
		})
	})
	sink, err := natstransport.NewSink(js, "s.1", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &dedup.Message{}
	m.Headers.SetKey("1")
	if err := sink.Publish(t.Context(), []*dedup.Message{m})[0]; err != nil {
		t.Fatal(err)
	}
	<-began
	want(t, reg, "dedup_nats_bound 1", "dedup_nats_failing 0", "dedup_nats_halted 0", "dedup_nats_in_hand 1",
		"dedup_nats_ack_pending_limit 77", "dedup_nats_binds_total 1", "dedup_nats_redeliveries_total 0", "dedup_nats_stale_deliveries_total 0",
		"dedup_nats_ack_failures_total 0", "dedup_nats_max_deliveries_total 0")
	golden.Metrics(t, "testdata/metrics.txt", reg, natsmetrics.New(c))
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	close(release)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}

// want wants lines of the form "name value".
func want(t *testing.T, reg *prometheus.Registry, lines ...string) {
	t.Helper()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, " ")
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range families {
			if f.GetName() != name {
				continue
			}
			found = true
			m := f.GetMetric()[0]
			got := m.GetGauge().GetValue() + m.GetCounter().GetValue()
			if text := strconv.FormatFloat(got, 'f', -1, 64); text != value {
				t.Errorf("%s: got %s, want %s", name, text, value)
			}
			if labels := m.GetLabel(); len(labels) != 2 || labels[0].GetValue() != "c" || labels[1].GetValue() != "S" {
				t.Errorf("%s: got labels %v, want consumer c and stream S", name, labels)
			}
		}
		if !found {
			t.Errorf("%s: not there", name)
		}
	}
}
