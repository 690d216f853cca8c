package kafkatransport

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/transport/internal/assignment"
)

func (s Status) well(assigned int) bool {
	return s.Assigned == assigned && s.Halted == 0 && len(s.Failing) == 0 && s.Since.IsZero()
}

// moves says whether the Consumer's progress goes on from now.
func moves(t *testing.T, c *Consumer) {
	t.Helper()
	now := time.Now()
	eventually(t, "progress", func() bool { return c.Status().Progress.After(now) })
}

func TestStatusFollowsTheBroker(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, &brokertest.KafkaOptions{Durable: true})
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	if got := c.Status(); !got.well(0) || !got.Progress.IsZero() {
		t.Errorf("before Run: got %+v, want zero", got)
	}
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "all partitions are held", func() bool { return c.Status().well(3) })
	moves(t, c)
	for range 2 {
		stopped := time.Now()
		k.Stop()
		eventually(t, "the loss of the broker shows", func() bool {
			s := c.Status()
			return len(s.Failing) > 0 && s.Since.After(stopped)
		})
		moves(t, c) // it tries again and again
		since := c.Status().Since
		eventually(t, "the group fails too", func() bool { return slices.Contains(c.Status().Failing, assignment.TheGroup) })
		if got := c.Status(); got.Assigned != 0 || !got.Since.Equal(since) {
			t.Errorf("got %+v, want no partition, failing since %v", got, since)
		}
		if err := k.Restart(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its return shows", func() bool { return c.Status().well(3) })
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if got := c.Status(); !got.well(0) || !got.Progress.IsZero() {
		t.Errorf("after Run: got %+v, want zero", got)
	}
}

// A broker that accepts everything and answers nothing is no error for a long time.
func TestStatusTellsOfABrokerThatIsSilent(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	var silent atomic.Bool
	k.Cluster().ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		return nil, nil, silent.Load()
	})
	config := quick(t)
	config.answerWithin = 300 * time.Millisecond
	config.fetchPatience = time.Hour // so that nothing else tells
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the partition is held", func() bool { return c.Status().well(1) })
	silent.Store(true)
	eventually(t, "the silence shows", func() bool {
		s := c.Status()
		return slices.Equal(s.Failing, []string{"t/0"}) && !s.Since.IsZero()
	})
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func TestStatusCountsHaltedPartitions(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.Permanent(errors.New("cannot be processed"))
		})
	})
	eventually(t, "all partitions are held", func() bool { return c.Status().well(3) })
	produce(t, k, numbered("t", 0, 1, 1)...)
	eventually(t, "one has halted", func() bool { return c.Status().Halted == 1 })
	if got := c.Status(); got.Assigned != 3 || len(got.Failing) > 0 {
		t.Errorf("got %+v, want 3 partitions and nothing that fails", got)
	}
	if err := r.Stop(); err != nil && !strings.Contains(err.Error(), "halted") {
		t.Errorf("Run: got %v", err)
	}
}

// A member without partitions is not stuck.
func TestStatusOfAMemberTooMany(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	var members [2]*Consumer
	for i := range members {
		c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
		members[i] = c
		start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	}
	eventually(t, "both are in the group, and one holds the partition", func() bool {
		group := k.Cluster().GroupInfo("g")
		return group != nil && group.State == "Stable" && len(group.Members) == 2 &&
			(members[0].Status().well(1) && members[1].Status().well(0) || members[0].Status().well(0) && members[1].Status().well(1))
	})
	moves(t, members[0])
	moves(t, members[1])
}

// A partition that halts because its offset is gone has failed before; then it
// is halted, and no broker is to blame.
func TestStatusOfAPartitionThatLostItsOffset(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	fill := func(from int) {
		records := numbered("t", from, 20, 20)
		for i, r := range records {
			r.Partition = int32(i % 2)
		}
		if err := k.Produce(t.Context(), true, records...); err != nil {
			t.Fatal(err)
		}
	}
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	fill(0)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	fill(20)
	if err := k.Cluster().DeleteRecords("t", 0, 15); err != nil {
		t.Fatal(err)
	}
	r = start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the loss shows", func() bool { return c.Status().Halted == 1 })
	if got := c.Status(); got.Assigned != 2 || len(got.Failing) > 0 || !got.Since.IsZero() {
		t.Errorf("got %+v, want 2 partitions and nothing that fails", got)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}
