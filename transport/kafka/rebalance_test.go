package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/oncequeue/oncequeue/transport/internal/lanes"
)

// commitWatch checks that no commit for a partition is lower than one before it.
type commitWatch struct {
	mu   sync.Mutex
	last map[string]int64
	back []string
}

func watchCommits(k *brokertest.Kafka) *commitWatch {
	w := &commitWatch{last: map[string]int64{}}
	k.Cluster().ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, topic := range r.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				name := fmt.Sprintf("%s/%d", topic.Topic, p.Partition)
				if p.Offset < w.last[name] {
					w.back = append(w.back, fmt.Sprintf("%s: %d after %d", name, p.Offset, w.last[name]))
				}
				w.last[name] = p.Offset
			}
		}
		return nil, nil, false
	})
	return w
}

func (w *commitWatch) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.back) > 0 {
		t.Errorf("commits moved back: %v", w.back)
	}
}

func TestMembersJoinAndLeaveWhileMessagesFlow(t *testing.T) {
	modes(t, func(t *testing.T, start func(*Consumer, *dedup.Deduplicator, dedup.Handler) *run) {
		k := brokertest.NewKafka(t, map[string]int32{"t": 6}, nil)
		commits := watchCommits(k)
		store := memstore.New(nil)
		j := newJournal()
		member := func() *run {
			return start(newConsumer(t, k, "g", quick(t), "t"), newDeduplicatorOver(t, store, nil), j.handle)
		}
		const rounds, each = 8, 2000
		var members []*run
		for i := range rounds {
			produce(t, k, numbered("t", i*each, each, 50)...)
			if i%3 < 2 {
				members = append(members, member())
			} else {
				if err := members[0].Stop(); err != nil {
					t.Errorf("a member that left: got %v, want nil", err)
				}
				members = members[1:]
			}
			eventually(t, "some progress", func() bool { return j.seen() > i*each })
		}
		eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		for _, m := range members {
			if err := m.Stop(); err != nil {
				t.Errorf("a member that stopped: got %v, want nil", err)
			}
		}
		j.check(t, rounds*each)
		commits.check(t)
	})
}

// stuck is a handler that does not return for messages with the value "stuck",
// whatever becomes of its context.
type stuck struct {
	journal *journal
	release chan struct{}
	started atomic.Int32
	cause   chan error // why the contexts ended
}

func newStuck(t *testing.T) *stuck {
	s := &stuck{journal: newJournal(), release: make(chan struct{}), cause: make(chan error, 10)}
	return s
}

func (s *stuck) handle(ctx context.Context, m *dedup.Message) ([]byte, error) {
	s.journal.begin(m)
	if strings.HasPrefix(string(m.Value), "stuck") {
		s.started.Add(1)
		<-ctx.Done()
		s.cause <- context.Cause(ctx)
		<-s.release
	}
	s.journal.end(m, true)
	return nil, nil
}

// perPartition makes, for each of the partitions, a record that gets stuck and n
// others after it. They have no keys, so that each has a lane of its own.
func perPartition(topic string, partitions, n int) (records []*kgo.Record) {
	for p := range partitions {
		for i := range n + 1 {
			id := fmt.Sprintf("p%d-%d", p, i)
			value := id
			if i == 0 {
				value = fmt.Sprintf("stuck%d", p)
			}
			records = append(records, &kgo.Record{
				Topic: topic, Partition: int32(p), Value: []byte(value),
				Headers: []kgo.RecordHeader{{Key: dedup.HeaderIdempotencyKey, Value: []byte(id)}},
			})
		}
	}
	return records
}

func pinned(t *testing.T, k *brokertest.Kafka, records ...*kgo.Record) {
	t.Helper()
	if err := k.Produce(context.Background(), true, records...); err != nil {
		t.Fatal(err)
	}
}

func TestNewOwnerWaitsForHandlerThatIgnoresItsContext(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	commits := watchCommits(k)
	const n = 20
	pinned(t, k, perPartition("t", 2, n)...)
	store := memstore.New(nil)
	config := quick(t)
	config.DrainTimeout = 200 * time.Millisecond
	h := newStuck(t)
	var busy atomic.Int32
	seeBusy := &dedup.Options{Concurrency: n, Hooks: dedup.Hooks{Decided: func(e dedup.Event) { // more than the stuck ones, on one core too
		if e.Result.Outcome == dedup.Busy {
			busy.Add(1)
		}
	}}}
	member := func() *run {
		c, d := newConsumer(t, k, "g", config, "t"), newDeduplicatorOver(t, store, seeBusy)
		return start(t, func(ctx context.Context) error { return c.Run(ctx, d, h.handle) })
	}
	first := member()
	eventually(t, "both partitions are stuck", func() bool { return h.started.Load() == 2 })
	second := member()
	for range 2 {
		if cause := <-h.cause; !errors.Is(cause, ErrRevoked) {
			t.Errorf("cause of the cancelled context: got %v, want ErrRevoked", cause)
		}
	}
	eventually(t, "the others are processed, the stuck ones are busy", func() bool {
		return h.journal.seen() == 2*n && busy.Load() >= 2
	})
	if got := h.started.Load(); got != 2 {
		t.Errorf("stuck handlers: got %d runs, want 2, as the first runs go on", got)
	}
	if got := k.Committed("g", "t"); got[0] > 0 || got[1] > 0 {
		t.Errorf("committed %v past the stuck messages", got)
	}
	close(h.release)
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	for _, m := range []*run{first, second} {
		if err := m.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	}
	h.journal.mu.Lock()
	defer h.journal.mu.Unlock()
	for value, times := range h.journal.runs {
		if times != 1 {
			t.Errorf("message %s: got %d runs, want 1", value, times)
		}
	}
	if h.journal.overlap > 0 {
		t.Errorf("got %d overlapping runs of one key", h.journal.overlap)
	}
	commits.check(t)
}

// TestLateHandlerCannotCommit: the members do not share a store, so the new owner
// goes far past the message at which the old one is stuck. When that is settled
// at last, nothing is committed for it.
func TestLateHandlerCannotCommit(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	commits := watchCommits(k)
	const n = 50
	pinned(t, k, perPartition("t", 2, n)...)
	config := quick(t)
	config.DrainTimeout = 200 * time.Millisecond
	h := newStuck(t)
	settled := make(chan struct{}, 2)
	late := &dedup.Options{Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
		if strings.HasPrefix(string(e.Message.Value), "stuck") && e.Result.Settled() {
			settled <- struct{}{}
		}
	}}}
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, late)
	first := start(t, func(ctx context.Context) error { return c.Run(ctx, d, h.handle) })
	eventually(t, "both partitions are stuck", func() bool { return h.started.Load() == 2 })
	j := newJournal()
	c2, d2 := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	second := start(t, func(ctx context.Context) error { return c2.Run(ctx, d2, j.handle) })
	var moved int32
	eventually(t, "the new owner has committed the end of its partition", func() bool {
		committed, ends := k.Committed("g", "t"), k.Ends("t")
		for p, end := range ends {
			if committed[p] == end {
				moved = p
				return true
			}
		}
		return false
	})
	close(h.release)
	<-settled
	<-settled
	produce(t, k, numbered("t", 1000, 20, 20)...) // and more commits of both members
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	for _, m := range []*run{first, second} {
		if err := m.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	}
	if got := c.Stats().Late; got != 2 {
		t.Errorf("got %d late settlements counted, want 2", got)
	}
	if got, want := k.Committed("g", "t")[moved], k.Ends("t")[moved]; got != want {
		t.Errorf("partition %d: committed %d, want %d", moved, got, want)
	}
	commits.check(t)
}

func TestShutdownDrainsAndRunsNothingTwice(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 4}, nil)
	const n = 3000
	produce(t, k, numbered("t", 0, n, 97)...)
	j := newJournal()
	var cancelled atomic.Int32
	handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		j.begin(m)
		select { // some work
		case <-ctx.Done():
			cancelled.Add(1)
		case <-time.After(200 * time.Microsecond):
		}
		j.end(m, true)
		return nil, nil
	}
	store := memstore.New(nil)
	for stops := 0; !complete(k, "g", "t"); stops++ {
		c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicatorOver(t, store, nil)
		r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, handle) })
		seen := j.seen()
		eventually(t, "some progress", func() bool { return j.seen() >= min(seen+n/4, n) })
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		if stops > 20 {
			t.Fatal("no end after 20 rounds")
		}
	}
	j.check(t, n)
	if got := cancelled.Load(); got != 0 {
		t.Errorf("got %d handlers cancelled, want 0", got)
	}
}

// slowStart holds back each call of DoEach until the gate opens.
type slowStart struct {
	lanes.Core
	entered atomic.Int32
	gate    chan struct{}
}

func (s *slowStart) DoEach(ctx context.Context, ms []*dedup.Message, h dedup.Handler) []dedup.Result {
	s.entered.Add(1)
	<-s.gate
	return s.Core.DoEach(ctx, ms, h)
}

// TestDrainStartsNoHandler: messages that are in DoEach when the drain begins give
// their claims back, as if they had never been tried.
func TestDrainStartsNoHandler(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	const n = 50
	produce(t, k, numbered("t", 0, n, n)...)
	config := quick(t)
	config.Lanes = 10
	log := &countingHandler{}
	config.Logger = log.logger()
	var decided, claims atomic.Int32
	d := newDeduplicator(t, &dedup.Options{Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
		decided.Add(1)
		if e.Message.Claim.Attempt == 1 && !e.Message.Claim.Ambiguous {
			claims.Add(1)
		}
	}}})
	j := newJournal()
	slow := &slowStart{Core: lanes.CoreOf(d), gate: make(chan struct{})}
	c := newConsumer(t, k, "g", config, "t")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r := start(t, func(context.Context) error { return c.runLanes(ctx, slow, j.handle) })
	eventually(t, "some lanes are in DoEach", func() bool { return slow.entered.Load() >= 5 })
	cancel()
	eventually(t, "the drain has begun", func() bool { return log.count("giving up the partitions") > 0 })
	close(slow.gate)
	if err := r.Wait(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if got := j.seen(); got != 0 {
		t.Errorf("got %d handlers started during the drain, want 0", got)
	}
	first := decided.Load()
	if got := claims.Load(); first == 0 || got != first {
		t.Errorf("got %d claims of %d as first attempts, want all", got, first)
	}
	r = start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
	if got := claims.Load() - first; got != n {
		t.Errorf("got %d messages processed in a first attempt, want %d: the drain must not count", got, n)
	}
}

func TestStragglerIsReported(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	pinned(t, k, perPartition("t", 1, 0)...)
	config := quick(t)
	config.DrainTimeout = 100 * time.Millisecond
	h := newStuck(t)
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, h.handle) })
	eventually(t, "the handler runs", func() bool { return h.started.Load() == 1 })
	wantError(t, r.Stop(), "1 handlers still run")
	if cause := <-h.cause; !errors.Is(cause, ErrRevoked) {
		t.Errorf("cause of the cancelled context: got %v, want ErrRevoked", cause)
	}
	close(h.release)
	if got := k.Committed("g", "t"); got[0] != 0 {
		t.Errorf("committed %v, past the message that is not settled", got)
	}
}
