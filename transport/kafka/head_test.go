package kafkatransport

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// TestFailedHeadHoldsBackOnlyItsKey: the first message of a partition fails for a
// long time. The messages of its key wait; all others are processed, up to the
// span that MaxAhead allows, and then the partition is no longer fetched.
func TestFailedHeadHoldsBackOnlyItsKey(t *testing.T) {
	modes(t, func(t *testing.T, begin func(*Consumer, *dedup.Deduplicator, dedup.Handler) *run) {
		const n, keys, span = 1000, 100, 400
		k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
		produce(t, k, numbered("t", 0, n, keys)...)
		j := newJournal()
		var open atomic.Bool
		handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if string(m.Value) == "0" && !open.Load() {
				return nil, errors.New("not yet")
			}
			return j.handle(ctx, m)
		}
		config := quick(t)
		config.MaxAhead, config.Lanes = span, 3 // keys share lanes
		c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, &dedup.Options{
			Backoff: func(int) time.Duration { return 5 * time.Millisecond },
		})
		r := begin(c, d, handle)
		eventually(t, "all other keys of the span are processed", func() bool {
			s := c.Stats()
			return j.seen() == span-span/keys && len(s.Partitions) == 1 && s.Partitions[0].InFlight == span/keys
		})
		s := c.Stats()
		p := s.Partitions[0]
		if p.Watermark != 0 || p.InFlightBytes == 0 || p.Oldest.IsZero() || p.End != n || p.Lag() != n {
			t.Errorf("got %+v, want watermark 0, bytes in flight since some time, end and lag %d", p, n)
		}
		open.Store(true)
		eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		s = c.Stats()
		if p := s.Partitions[0]; p.Watermark != n || p.Committed != n || p.InFlight != 0 || p.InFlightBytes != 0 || !p.Oldest.IsZero() || p.Lag() != 0 {
			t.Errorf("in the end: got %+v, want all settled and committed", p)
		}
		if s.Commits == 0 || s.Rebalances != 1 || s.Drains != 0 {
			t.Errorf("got %+v, want commits, one rebalance, no drain", s)
		}
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		if s := c.Stats(); s.Drains != 1 || s.Late != 0 || len(s.Partitions) != 0 {
			t.Errorf("after Run: got %+v, want one drain, nothing late, no partition", s)
		}
		j.check(t, n)
	})
}

// TestRetryAfterForEver: a message that asks for the longest delay there is does not
// come again, and holds back its key only.
func TestRetryAfterForEver(t *testing.T) {
	modes(t, func(t *testing.T, begin func(*Consumer, *dedup.Deduplicator, dedup.Handler) *run) {
		const n, keys = 100, 10
		k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
		produce(t, k, numbered("t", 0, n, keys)...)
		j := newJournal()
		var runs atomic.Int64
		handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			switch string(m.Value) {
			case "0":
				runs.Add(1)
				return nil, dedup.RetryAfter(errors.New("never again"), math.MaxInt64)
			case "1":
				runs.Add(1)
				return nil, errors.New("what Backoff says")
			}
			return j.handle(ctx, m)
		}
		c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, &dedup.Options{
			Backoff: func(int) time.Duration { return math.MaxInt64 },
		})
		r := begin(c, d, handle)
		eventually(t, "all other keys are processed", func() bool { return j.seen() == n-2*n/keys })
		time.Sleep(50 * time.Millisecond)
		if got := runs.Load(); got != 2 {
			t.Errorf("got %d runs of two messages that are not to come again, want 2", got)
		}
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	})
}

// TestHungHandlerHoldsUpItsKeyOnly: the handler of one key does not return, with many
// more messages behind it than may be in flight. All other keys, of its partition and of
// the others, are processed.
func TestHungHandlerHoldsUpItsKeyOnly(t *testing.T) {
	const partitions, keys, n = 3, 1000, 60_000
	k := brokertest.NewKafka(t, map[string]int32{"t": partitions}, nil)
	pinned(t, k, spread(partitions, numbered("t", 0, n, keys))...)
	hung := make(chan struct{})
	var once sync.Once
	j := newJournal()
	config := quick(t)
	config.MaxInFlight = 2048
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, &dedup.Options{HandlerTimeout: -1})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if string(m.Value) == "7" {
				once.Do(func() { <-hung })
			}
			return j.handle(ctx, m)
		})
	})
	eventually(t, "all but one key are processed", func() bool {
		inFlight := 0
		for _, p := range c.Stats().Partitions {
			inFlight += p.InFlight
		}
		return j.seen() == n-n/keys && inFlight == n/keys
	})
	close(hung)
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
}

// TestTotalInFlightBoundsAllPartitions: with every handler stuck, no more than
// TotalInFlight messages are in hand, and one for each partition.
func TestTotalInFlightBoundsAllPartitions(t *testing.T) {
	const partitions, n = 4, 400
	k := brokertest.NewKafka(t, map[string]int32{"t": partitions}, nil)
	records := numbered("t", 0, n, n)
	for i, r := range records {
		r.Partition = int32(i % partitions)
	}
	pinned(t, k, records...)
	config := quick(t)
	config.TotalInFlight = 10
	open := make(chan struct{})
	j := newJournal()
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			<-open
			return j.handle(ctx, m)
		})
	})
	inFlight := func() (all, least int) {
		least = n
		for _, p := range c.Stats().Partitions {
			all, least = all+p.InFlight, min(least, p.InFlight)
		}
		return all, least
	}
	eventually(t, "every partition has something in flight", func() bool { _, least := inFlight(); return least > 0 && least < n })
	if all, _ := inFlight(); all > 10+partitions-1 {
		t.Errorf("got %d messages in flight, want at most 10, and one for each partition that finds no room", all)
	}
	close(open)
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
}
