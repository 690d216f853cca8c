package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestCommitErrorsRideThrough(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	committed := map[int32]int64{}
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	n := 0
	for _, e := range []*kerr.Error{kerr.RebalanceInProgress, kerr.NotCoordinator, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RequestTimedOut} {
		fault := k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Group: "g", Err: e, Count: 2})
		produce(t, k, numbered("t", n, 200, 20)...)
		n += 200
		eventually(t, fmt.Sprintf("%s is met, and the ends are committed", e.Message), func() bool {
			for p, offset := range k.Committed("g", "t") {
				if offset < committed[p] {
					t.Errorf("partition %d: committed %d after %d", p, offset, committed[p])
				}
				committed[p] = offset
			}
			return fault.Hits() == 2 && complete(k, "g", "t")
		})
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
}

// TestErrorOfOnePartitionIsItsOwn: the others start, and are committed.
func TestErrorOfOnePartitionIsItsOwn(t *testing.T) {
	for name, x := range map[string]struct {
		fault   kfake.Fault
		failing string
	}{
		"commit": {kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}}, "commit t/0"},
		// kafka-go asks too when it joins, by an older version, and joins again after an error.
		"owner": {kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetFetch}, When: func(r kmsg.Request) bool { return r.GetVersion() > 1 }}, "t/0"},
	} {
		t.Run(name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
			x.fault.Topic, x.fault.Partitions = "t", []int32{0}
			x.fault.Err, x.fault.Count = kerr.TopicAuthorizationFailed, -1
			fault := k.Cluster().Fault(x.fault)
			const n = 300
			records := numbered("t", 0, n, 30)
			for i, r := range records {
				r.Partition = int32(i % 3)
			}
			pinned(t, k, records...)
			j := newJournal()
			c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
			r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
			eventually(t, "the others are committed, and its error shows", func() bool {
				committed := k.Committed("g", "t")
				return committed[1] == n/3 && committed[2] == n/3 && slices.Equal(c.Status().Failing, []string{x.failing})
			})
			if got := j.seen(); got != 2*n/3 {
				t.Errorf("got %d messages handled, want the %d of the others: its owner is not named", got, 2*n/3)
			}
			if got := c.Stats().Rebalances; got != 1 {
				t.Errorf("got %d assignments, want 1", got)
			}
			fault.Remove()
			eventually(t, "all is committed, and well", func() bool { return complete(k, "g", "t") && c.Status().well(3) })
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			j.check(t, n)
		})
	}
}

func TestFetchErrorsRideThrough(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, &brokertest.KafkaOptions{Brokers: 2})
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	n := 0
	for _, e := range []*kerr.Error{kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.OffsetNotAvailable, kerr.OffsetOutOfRange, kerr.FencedLeaderEpoch} {
		fault := k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: e, Count: 3})
		produce(t, k, numbered("t", n, 200, 20)...)
		n += 200
		eventually(t, fmt.Sprintf("%s is met, and the ends are committed", e.Message), func() bool {
			return fault.Hits() == 3 && complete(k, "g", "t")
		})
	}
	k.Cluster().ShufflePartitionLeaders()
	k.Cluster().RehashCoordinators()
	produce(t, k, numbered("t", n, 200, 20)...)
	n += 200
	eventually(t, "leaders and coordinator moved, and the ends are committed", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
}

func TestBrokenConnectionsRideThrough(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	commits := watchCommits(k)
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	const rounds, each = 5, 500
	for i := range rounds {
		produce(t, k, numbered("t", i*each, each, 20)...)
		k.CutConnections()
		eventually(t, "some progress", func() bool { return j.seen() > i*each })
	}
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, rounds*each)
	commits.check(t)
}

func TestFetchWithoutAnswerIsNoticed(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	var unanswered atomic.Int32
	k.Cluster().ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		unanswered.Add(1)
		return nil, nil, true // once, and on that connection never again
	})
	produce(t, k, numbered("t", 0, 10, 10)...)
	j := newJournal()
	config := quick(t)
	config.fetchPatience = 200 * time.Millisecond
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if got := unanswered.Load(); got != 1 {
		t.Errorf("got %d fetches without an answer, want 1", got)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, 10)
}

func TestBrokerRestartsUnderRunningConsumer(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, &brokertest.KafkaOptions{Durable: true})
	j := newJournal()
	config := quick(t)
	log := &countingHandler{}
	config.Logger = log.logger()
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	const each = 500
	produce(t, k, numbered("t", 0, each, 20)...)
	eventually(t, "some progress", func() bool { return j.seen() > 0 })
	k.Stop()
	eventually(t, "the loss of the broker is logged", func() bool { return log.count("kafka fails") > 0 })
	if err := k.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the return of the broker is logged", func() bool { return log.count("kafka answers again") > 0 })
	produce(t, k, numbered("t", each, each, 20)...)
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, 2*each)
}

func TestBrokerThatIsNotThereYetIsWaitedFor(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, &brokertest.KafkaOptions{Durable: true})
	produce(t, k, numbered("t", 0, 10, 10)...)
	k.Stop()
	j := newJournal()
	config := quick(t)
	log := &countingHandler{}
	config.Logger = log.logger()
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the missing broker is logged", func() bool { return log.count("kafka fails") > 0 })
	if err := k.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if got := log.count("kafka fails"); got != 1 {
		t.Errorf("loss of the broker: got %d log lines, want 1: %q", got, log.messages)
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, 10)
}

func TestIdleRunReturnsSoon(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	config := quick(t)
	config.MaxWait = 0 // the default, which a shutdown must not wait for
	config.leaveTimeout = time.Minute
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the member is in the group", func() bool {
		info := k.Cluster().GroupInfo("g")
		return info != nil && info.State == "Stable" && info.NumAssigned() == 3
	})
	began := time.Now()
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if took := time.Since(began); took > config.leaveTimeout/2 {
		t.Errorf("Run returned %v after its context ended, want it not to wait", took)
	}
	eventually(t, "the member has left the group", func() bool { return len(k.Cluster().GroupInfo("g").Members) == 0 })
}

// TestMemberLeavesSlowBroker: the connections of TLS and SASL take many round trips.
func TestMemberLeavesSlowBroker(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	config := quick(t)
	config.leaveTimeout = time.Minute
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the member holds its partition", func() bool { return c.Status().Assigned == 1 })
	cluster := k.Cluster()
	cluster.ControlKey(int16(kmsg.FindCoordinator), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		cluster.SleepControl(func() { <-time.After(2 * silentTimeout) })
		return nil, nil, false
	})
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if got := len(cluster.GroupInfo("g").Members); got != 0 {
		t.Errorf("got %d members after Run, want 0", got)
	}
}

func TestShutdownDuringJoinReturnsSoon(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	joining := make(chan struct{}, 10)
	k.Cluster().ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		joining <- struct{}{}
		return nil, nil, true // no answer, as while others do not rejoin
	})
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	<-joining
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

// halting fails for good at messages whose value begins with "bad"; without a
// DeadLetter that halts.
func halting(j *journal) dedup.Handler {
	return func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if strings.HasPrefix(string(m.Value), "bad") {
			return nil, dedup.Permanent(errors.New("cannot be processed"))
		}
		return j.handle(ctx, m)
	}
}

func haltingBatch(j *journal) dedup.BatchHandler {
	return func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := make([]dedup.Answer, len(ms))
		for i, m := range ms {
			answers[i].Result, answers[i].Err = halting(j)(ctx, m)
		}
		return answers
	}
}

func TestHaltStopsItsPartitionOnly(t *testing.T) {
	for name, runIt := range map[string]func(context.Context, *Consumer, *dedup.Deduplicator, *journal) error{
		"Run": func(ctx context.Context, c *Consumer, d *dedup.Deduplicator, j *journal) error {
			return c.Run(ctx, d, halting(j))
		},
		"RunBatch": func(ctx context.Context, c *Consumer, d *dedup.Deduplicator, j *journal) error {
			return c.RunBatch(ctx, d, haltingBatch(j))
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
			records := numbered("t", 0, 100, 100)
			for i, r := range records {
				r.Partition = int32(i % 2)
			}
			records[20].Value = []byte("bad0") // partition 0, offset 10
			pinned(t, k, records...)
			j := newJournal()
			config := quick(t)
			log := &countingHandler{}
			config.Logger = log.logger()
			c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
			r := start(t, func(ctx context.Context) error { return runIt(ctx, c, d, j) })
			eventually(t, "the other partition is complete", func() bool { return k.Committed("g", "t")[1] == 50 })
			eventually(t, "the halt", func() bool { return log.count("partition halted") > 0 })
			if got := log.count("partition halted"); got != 1 {
				t.Errorf("got %d log lines about the halt, want 1", got)
			}
			more := numbered("t", 100, 2, 2)
			more[0].Partition, more[1].Partition = 1, 1
			more[1].Value = []byte("bad1")
			pinned(t, k, more...)
			err := r.Wait()
			if !errors.Is(err, dedup.ErrHalted) {
				t.Errorf("Run with all partitions halted: got %v, want ErrHalted", err)
			}
			wantErrorHas(t, err, "t/0@10", "t/1@51", "cannot be processed")
			if got := k.Committed("g", "t"); got[0] > 10 || got[1] > 51 {
				t.Errorf("committed %v, past the messages 10 and 51 that halted", got)
			}
		})
	}
}

// TestHaltLeavesItsRoom: what a halted partition has in flight is no longer counted,
// also while its handlers still run.
func TestHaltLeavesItsRoom(t *testing.T) {
	const n = 8
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	write := func(partition int32, first string) {
		records := numbered("t", int(partition)*n, n, n)
		for _, r := range records {
			r.Partition, r.Key = partition, nil // so that no two share a lane
		}
		records[0].Value = []byte(first)
		pinned(t, k, records...)
	}
	write(0, "bad")
	config := quick(t)
	config.BatchSize, config.MaxInFlight, config.TotalInFlight = n, n, n
	var running [2]atomic.Int32
	filled, open := make(chan struct{}), make(chan struct{})
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, &dedup.Options{Concurrency: 2 * n})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if running[m.Position.Partition].Add(1) == n && m.Position.Partition == 0 {
				close(filled)
			}
			if string(m.Value) == "bad" {
				<-filled
				return nil, dedup.Permanent(errors.New("cannot be processed"))
			}
			<-open
			return nil, nil
		})
	})
	eventually(t, "the halt", func() bool { return c.Status().Halted == 1 })
	write(1, "good")
	eventually(t, "the other partition has as many in hand as there is room for", func() bool { return running[1].Load() == n })
	close(open)
	eventually(t, "it is committed", func() bool { return k.Committed("g", "t")[1] == n })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func wantErrorHas(t *testing.T, err error, want ...string) {
	t.Helper()
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got error %v, want %q in it", err, w)
		}
	}
}

// TestFailingHandlerLosesNothing: every tenth message fails in its first three
// attempts.
func TestFailingHandlerLosesNothing(t *testing.T) {
	const n = 2000
	options := &dedup.Options{Backoff: func(int) time.Duration { return 5 * time.Millisecond }}
	fails := func(m *dedup.Message, wrong *atomic.Int32) error {
		if m.Value[len(m.Value)-1] == '0' && m.Claim.Attempt <= 3 {
			return errors.New("not yet")
		}
		want := 1
		if m.Value[len(m.Value)-1] == '0' {
			want = 4
		}
		if m.Claim.Attempt != want {
			wrong.Add(1)
		}
		return nil
	}
	for _, mode := range []string{"Run", "RunBatch"} {
		t.Run(mode, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
			produce(t, k, numbered("t", 0, n, n)...)
			j := newJournal()
			var wrong atomic.Int32
			handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
				if err := fails(m, &wrong); err != nil {
					return nil, err
				}
				return j.handle(ctx, m)
			}
			c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, options)
			r := start(t, func(ctx context.Context) error {
				if mode == "Run" {
					return c.Run(ctx, d, handle)
				}
				return c.RunBatch(ctx, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
					answers := make([]dedup.Answer, len(ms))
					for i, m := range ms {
						answers[i].Result, answers[i].Err = handle(ctx, m)
					}
					return answers
				})
			})
			eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			j.check(t, n)
			if got := wrong.Load(); got != 0 {
				t.Errorf("got %d messages processed with a wrong count of attempts, want 0", got)
			}
		})
	}
}

// TestFailedKeyHoldsBackItsLaterMessages: others go on meanwhile.
func TestFailedKeyHoldsBackItsLaterMessages(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	const n = 300
	produce(t, k, numbered("t", 0, n, 30)...)
	j := newJournal()
	var open atomic.Bool
	handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if string(m.Value) == "7" && !open.Load() { // the first of its key
			return nil, errors.New("not yet")
		}
		return j.handle(ctx, m)
	}
	options := &dedup.Options{Backoff: func(int) time.Duration { return 5 * time.Millisecond }}
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, options)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, handle) })
	// A key that hashes to the same lane waits too.
	eventually(t, "most others are processed", func() bool { return j.seen() >= n-10*5 })
	j.mu.Lock()
	if got := len(j.byKey["k7"]); got != 0 {
		t.Errorf("got %d messages of the failed key processed, want 0", got)
	}
	j.mu.Unlock()
	if got := k.Committed("g", "t")[0]; got > 7 {
		t.Errorf("committed %d, past the failed message", got)
	}
	open.Store(true)
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, n)
}

func TestSecondRunIsRefused(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the first runs", c.running.Load)
	wantError(t, c.Run(context.Background(), d, newJournal().handle), "runs already")
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}
