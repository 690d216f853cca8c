package kafkatransport

import (
	"context"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// modes runs a test with Run and with RunBatch.
func modes(t *testing.T, f func(t *testing.T, start func(*Consumer, *dedup.Deduplicator, *journal) *run)) {
	t.Run("Run", func(t *testing.T) {
		f(t, func(c *Consumer, d *dedup.Deduplicator, j *journal) *run {
			return start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
		})
	})
	t.Run("RunBatch", func(t *testing.T) {
		f(t, func(c *Consumer, d *dedup.Deduplicator, j *journal) *run {
			return start(t, func(ctx context.Context) error { return c.RunBatch(ctx, d, j.handleBatch) })
		})
	})
}

func TestAllProcessedInOrderAndCommitted(t *testing.T) {
	modes(t, func(t *testing.T, start func(*Consumer, *dedup.Deduplicator, *journal) *run) {
		k := brokertest.NewKafka(t, map[string]int32{"t": 6}, &brokertest.KafkaOptions{Brokers: 3})
		const n = 20000
		produce(t, k, numbered("t", 0, n, 100)...)
		j := newJournal()
		r := start(newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil), j)
		eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		j.check(t, n)
	})
}
