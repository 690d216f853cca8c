package kafkametrics_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/golden"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
	kafkametrics "github.com/oncequeue/oncequeue/transport/kafka/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCollector(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	var records []*kgo.Record
	for i, key := range []string{"a", "b", "halts", "c", "d"} { // partition 0: a, halts, d
		records = append(records, &kgo.Record{
			Topic: "t", Partition: int32(i % 2), Value: []byte(key),
			Headers: []kgo.RecordHeader{{Key: dedup.HeaderIdempotencyKey, Value: []byte(key)}},
		})
	}
	if err := k.Produce(t.Context(), true, records...); err != nil {
		t.Fatal(err)
	}
	c, err := kafkatransport.NewConsumer(k.Addrs(), "g", []string{"t"}, &kafkatransport.Config{
		ClientID: "me", Lanes: 1, CommitInterval: 10 * time.Millisecond, MaxWait: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(kafkametrics.NewCollector(c)); err != nil {
		t.Fatal(err)
	}
	wantMetrics(t, reg, `
# HELP dedup_kafka_rebalances_total Assignments received, empty ones included.
# TYPE dedup_kafka_rebalances_total counter
dedup_kafka_rebalances_total{client="me",group="g"} 0
`, "dedup_kafka_rebalances_total", "dedup_kafka_lag")

	d := transporttest.NewDeduplicator(t, memstore.New(nil), nil)
	run := transporttest.Start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if string(m.Value) == "halts" {
				return nil, dedup.Permanent(errors.New("cannot be processed"))
			}
			return nil, nil
		})
	})
	transporttest.Eventually(t, "one partition halts, the other is committed", func() bool {
		halted, committed := false, false
		for _, p := range c.Stats().Partitions {
			halted = halted || p.Partition == 0 && p.Halted && p.Committed == 1
			committed = committed || p.Partition == 1 && p.Committed == 2 && p.End == 2
		}
		return halted && committed
	})
	wantMetrics(t, reg, `
# HELP dedup_kafka_committed_offset Last committed offset.
# TYPE dedup_kafka_committed_offset gauge
dedup_kafka_committed_offset{client="me",group="g",partition="0",topic="t"} 1
dedup_kafka_committed_offset{client="me",group="g",partition="1",topic="t"} 2
# HELP dedup_kafka_halted 1 if the partition has halted.
# TYPE dedup_kafka_halted gauge
dedup_kafka_halted{client="me",group="g",partition="0",topic="t"} 1
dedup_kafka_halted{client="me",group="g",partition="1",topic="t"} 0
# HELP dedup_kafka_in_flight Messages fetched and not settled.
# TYPE dedup_kafka_in_flight gauge
dedup_kafka_in_flight{client="me",group="g",partition="0",topic="t"} 2
dedup_kafka_in_flight{client="me",group="g",partition="1",topic="t"} 0
# HELP dedup_kafka_lag Offsets that are not settled yet, to the end of the log.
# TYPE dedup_kafka_lag gauge
dedup_kafka_lag{client="me",group="g",partition="0",topic="t"} 2
dedup_kafka_lag{client="me",group="g",partition="1",topic="t"} 0
# HELP dedup_kafka_rebalances_total Assignments received, empty ones included.
# TYPE dedup_kafka_rebalances_total counter
dedup_kafka_rebalances_total{client="me",group="g"} 1
# HELP dedup_kafka_skipped_offsets_total Offsets skipped because of OutOfRange or StartOffset.
# TYPE dedup_kafka_skipped_offsets_total counter
dedup_kafka_skipped_offsets_total{client="me",group="g"} 0
# HELP dedup_kafka_watermark_offset Offset up to which, itself excluded, all is settled.
# TYPE dedup_kafka_watermark_offset gauge
dedup_kafka_watermark_offset{client="me",group="g",partition="0",topic="t"} 1
dedup_kafka_watermark_offset{client="me",group="g",partition="1",topic="t"} 2
`, "dedup_kafka_committed_offset", "dedup_kafka_halted", "dedup_kafka_in_flight", "dedup_kafka_lag", "dedup_kafka_rebalances_total", "dedup_kafka_skipped_offsets_total", "dedup_kafka_watermark_offset")
	golden.Metrics(t, "testdata/metrics.txt", reg, kafkametrics.NewCollector(c))
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	if err := run.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func wantMetrics(t *testing.T, reg prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}
