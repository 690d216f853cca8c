package kafkatransport

import (
	"context"
	"errors"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// modes runs a test with Run and with RunBatch.
func modes(t *testing.T, f func(t *testing.T, start func(*Consumer, *dedup.Deduplicator, dedup.Handler) *run)) {
	t.Run("Run", func(t *testing.T) {
		f(t, func(c *Consumer, d *dedup.Deduplicator, h dedup.Handler) *run {
			return start(t, func(ctx context.Context) error { return c.Run(ctx, d, h) })
		})
	})
	t.Run("RunBatch", func(t *testing.T) {
		f(t, func(c *Consumer, d *dedup.Deduplicator, h dedup.Handler) *run {
			return start(t, func(ctx context.Context) error { return c.RunBatch(ctx, d, inOrder(h)) })
		})
	})
}

// inOrder calls h for each message of a batch, but not for those whose key has
// failed in it: so the order of each key holds.
func inOrder(h dedup.Handler) dedup.BatchHandler {
	return func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := make([]dedup.Answer, len(ms))
		failed := map[string]bool{}
		for i, m := range ms {
			if failed[string(m.Key)] {
				answers[i].Err = dedup.Transient(errors.New("behind one that failed"))
				continue
			}
			answers[i].Result, answers[i].Err = h(ctx, m)
			failed[string(m.Key)] = answers[i].Err != nil
		}
		return answers
	}
}

func TestAllProcessedInOrderAndCommitted(t *testing.T) {
	modes(t, func(t *testing.T, start func(*Consumer, *dedup.Deduplicator, dedup.Handler) *run) {
		k := brokertest.NewKafka(t, map[string]int32{"t": 6}, &brokertest.KafkaOptions{Brokers: 3})
		const n = 20000
		produce(t, k, numbered("t", 0, n, 100)...)
		j := newJournal()
		r := start(newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil), j.handle)
		eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		j.check(t, n)
	})
}
