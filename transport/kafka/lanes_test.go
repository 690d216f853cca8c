package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// turns notes what lanes have a Deduplicator do together.
type turns struct {
	core
	each     func(ms []*dedup.Message)
	together int
}

func (d *turns) DoEach(ctx context.Context, ms []*dedup.Message, h dedup.Handler) []dedup.Result {
	d.each(ms)
	results := d.core.DoEach(ctx, ms, h)
	d.together = max(d.together, len(results))
	return results
}

// TestLanePropertyOrder: whatever fails, the messages of a key are settled in their
// order, and none is tried together with one before it. What is behind a failure
// of another key goes on, and nothing of a partition that halted.
func TestLanePropertyOrder(t *testing.T) {
	const keys, partitions = 4, 2
	together := 0
	rapid.Check(t, func(t *rapid.T) {
		config, err := (&Config{}).filled()
		if err != nil {
			t.Fatal(err)
		}
		s := &session{config: &config, log: config.Logger, status: &status{log: config.Logger}, counters: &counters{}, base: t.Context()}
		s.newWorkers = func([]*partition) workers { return nil }
		g := newGeneration(s, map[string][]kafka.PartitionAssignment{"t": {{ID: 0}, {ID: 1}}}, nil)
		for _, p := range g.partitions {
			p.stop = func() {}
		}
		d := &turns{}
		if d.Deduplicator, err = dedup.New(memstore.New(nil), "s", dedup.PositionKey(), &dedup.Options{OnStale: dedup.PolicyProcess}); err != nil {
			t.Fatal(err)
		}
		d.Transport = d.Deduplicator.Transport()
		defer func() { _ = d.Shutdown(context.Background()) }()
		byNumber := map[int32]*partition{}
		for _, p := range g.partitions {
			byNumber[p.source.partition] = p
		}
		lane := func(m *dedup.Message) string { return fmt.Sprint(m.Position.Partition, string(m.Key)) }
		var items []item
		want, got := map[string][]int64{}, map[string][]int64{}
		next := make([]int64, partitions)
		for range rapid.IntRange(1, 60).Draw(t, "messages") {
			n := rapid.Int32Range(0, partitions-1).Draw(t, "partition")
			p := byNumber[n]
			m := dedup.Message{Published: time.Now(), Position: dedup.Position{Source: "t", Partition: n, Offset: next[n]}}
			if key := rapid.IntRange(0, keys).Draw(t, "key"); key > 0 {
				m.Key = []byte{'a' + byte(key)}
			}
			next[n]++
			ms := []dedup.Message{m}
			_, seq, _ := p.dispatch(ms)
			items = append(items, item{p, &ms[0], seq})
			if m.Key != nil {
				want[lane(&m)] = append(want[lane(&m)], m.Position.Offset)
			}
		}
		halts, halted := rapid.Bool().Draw(t, "halts"), int32(-1)
		d.each = func(ms []*dedup.Message) {
			seen := map[string]bool{}
			for _, m := range ms {
				if m.Key != nil && seen[lane(m)] {
					t.Fatalf("%v is tried together with one of its key", m.Position)
				}
				seen[lane(m)] = true
				if byNumber[m.Position.Partition].halted.Load() {
					t.Fatalf("%v is tried after its partition has halted", m.Position)
				}
			}
		}
		l := newLanes(1, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			switch n := rapid.IntRange(0, 9).Draw(t, "outcome"); {
			case n == 0 && halts:
				halts, halted = false, m.Position.Partition
				return nil, dedup.Permanent(errors.New("no dead letters"))
			case n < 3:
				return nil, dedup.RetryAfter(errors.New("not yet"), 0)
			}
			if m.Position.Partition == halted {
				t.Fatalf("%v ran after its partition halted", m.Position)
			}
			if m.Key != nil {
				got[lane(m)] = append(got[lane(m)], m.Position.Offset)
			}
			return nil, nil
		})
		for rounds := 0; len(items) > 0; rounds++ {
			if rounds == 1000 {
				t.Fatal("it has no end")
			}
			again := l.try(g, items, nil, l.h)
			items = items[:0]
			for _, r := range again {
				items = append(items, r.item)
			}
			items = slices.DeleteFunc(items, func(it item) bool { return it.partition.halted.Load() })
		}
		together = max(together, d.together)
		for k, offsets := range got {
			if full := want[k]; len(offsets) > len(full) || !slices.Equal(offsets, full[:len(offsets)]) {
				t.Fatalf("partition and key %s: got %v, want %v", k, offsets, full)
			}
		}
		for _, p := range g.partitions {
			if offset, _ := p.watermark(); !p.halted.Load() && offset != next[p.source.partition] {
				t.Fatalf("%s: got watermark %d, want %d", p.name, offset, next[p.source.partition])
			}
		}
	})
	if together < 2 {
		t.Error("no two messages were tried together")
	}
}
