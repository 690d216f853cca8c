package kafkatransport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// scenarios are what brokers can do to a consumer. They run on kfake, and on real
// brokers as TestRealScenarios.
var scenarios = []struct {
	name string
	run  func(*testing.T, *cluster)
}{
	{"payloads and compression", payloads},
	{"transactions", transactions},
	{"compacted topic", compactedTopic},
	{"topic deleted and created anew", topicCreatedAnew},
	{"retention overtakes the group", retentionOvertakes},
	{"partitions and topics added", partitionsAdded},
	{"handler that ends after its partition was revoked", lateHandler},
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) { s.run(t, fakeCluster(t, nil)) })
	}
}

// consume runs a member until the group has committed the ends and during has
// returned.
func (c *cluster) consume(config *Config, d *dedup.Deduplicator, group, topic string, h dedup.Handler, during func()) *Consumer {
	c.t.Helper()
	consumer := newConsumer(c.t, c, group, config, topic)
	r := start(c.t, func(ctx context.Context) error { return consumer.Run(ctx, d, h) })
	c.awaitCommitted(group, topic)
	if during != nil {
		during()
		c.awaitCommitted(group, topic)
	}
	if err := r.Stop(); err != nil {
		c.t.Errorf("Run: got %v, want nil", err)
	}
	return consumer
}

// payloads: what a producer may write comes out as it is: nulls, empty and
// repeated things, large messages, every compression.
func payloads(t *testing.T, c *cluster) {
	topic := c.newTopic(2, nil)
	noise := make([]byte, 1_000_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	want := make(map[string]*kgo.Record)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		cl := c.client(kgo.ProducerBatchCompression(codec))
		header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
		records := []*kgo.Record{
			{Key: nil, Value: nil},
			{Key: []byte{}, Value: []byte{}},
			{Key: []byte("k"), Value: nil},
			{Key: nil, Value: []byte("v"), Headers: []kgo.RecordHeader{header("a", "1"), header("a", "2"), {Key: "null"}, header("", "")}},
			{Key: bytes.Repeat([]byte("k"), 10_000), Value: bytes.Repeat([]byte("v"), 200_000)},
			{Key: []byte("large"), Value: noise},
		}
		for i := range 500 {
			records = append(records, &kgo.Record{Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "value %d", i)})
		}
		for i, r := range records {
			id := fmt.Sprintf("%v-%d", codec, i)
			r.Topic, r.Partition = topic, int32(i%2)
			r.Headers = append(r.Headers, header(dedup.HeaderIdempotencyKey, id))
			want[id] = r
		}
		c.must(cl.ProduceSync(c.ctx(), records...).FirstErr())
		cl.Close()
	}
	var mu sync.Mutex
	seen := make(map[string]bool)
	config := c.config()
	config.FetchMaxBytes = 50_000 // smaller than some messages
	c.consume(config, newDeduplicator(t, nil), "g-"+topic, topic, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		id := string(m.Claim.Key)
		seen[id] = true
		r := want[id]
		same := r != nil && same(m.Key, r.Key) && same(m.Value, r.Value) && len(m.Headers) == len(r.Headers) &&
			m.Position == dedup.Position{Source: topic, Partition: r.Partition, Offset: r.Offset} && m.Published.Equal(r.Timestamp.Truncate(time.Millisecond))
		for i := 0; same && i < len(r.Headers); i++ {
			same = m.Headers[i].Key == r.Headers[i].Key && string(m.Headers[i].Value) == string(r.Headers[i].Value)
		}
		if !same {
			t.Errorf("message %s at %v differs from what was produced", id, m.Position)
		}
		return nil, nil
	}, nil)
	if len(seen) != len(want) {
		t.Errorf("got %d messages, want %d", len(seen), len(want))
	}
}

// same says whether two values are equal, and null alike.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// transactions: records of aborted transactions and the markers are not handed
// out, and are committed past.
func transactions(t *testing.T, c *cluster) {
	topic := c.newTopic(1, nil)
	cl := c.client(kgo.TransactionalID("x-" + topic))
	defer cl.Close()
	transaction := func(commit kgo.TransactionEndTry, from, n int) {
		t.Helper()
		c.must(cl.BeginTransaction())
		c.must(cl.ProduceSync(c.ctx(), numbered(topic, from, n, 10)...).FirstErr())
		c.must(cl.EndTransaction(c.ctx(), commit))
	}
	outside := func(n int) { // of any transaction
		r := numbered(topic, n, 1, 1)[0]
		r.Key = []byte("outside")
		c.produce(r)
	}
	want := 0
	for i := range 6 {
		commit := kgo.TransactionEndTry(i%2 == 0)
		transaction(commit, i*50, 50)
		if commit {
			want += 50
		}
		outside(1000 + i)
		want++
	}
	transaction(kgo.TryAbort, 2500, 10) // at the very end
	config := c.config()
	config.FetchMaxBytes = 2000 // so that transactions span fetches
	j := newJournal()
	c.consume(config, newDeduplicator(t, nil), "g-"+topic, topic, j.handle, func() {
		c.must(cl.BeginTransaction())
		c.must(cl.ProduceSync(c.ctx(), numbered(topic, 2000, 10, 10)...).FirstErr())
		outside(1100) // behind an open transaction
		if got := j.seen(); got != want {
			t.Errorf("got %d messages while a transaction is open, want %d", got, want)
		}
		c.must(cl.EndTransaction(c.ctx(), kgo.TryAbort))
		want++
	})
	j.check(t, want)
	for value := range j.runs {
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil || n >= 2000 || n < 1000 && n/50%2 == 1 {
			t.Errorf("message %q of an aborted transaction was handed out", value)
		}
	}
}

// compactedTopic: compaction leaves holes, and batches with nothing in them.
func compactedTopic(t *testing.T, c *cluster) {
	topic := c.newTopic(1, map[string]string{
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.001", "segment.ms": "100", "delete.retention.ms": "0", "min.compaction.lag.ms": "0",
	})
	cl := c.client(kgo.TransactionalID("x-" + topic))
	defer cl.Close()
	const n, rounds = 50, 8
	for round := range rounds {
		records := numbered(topic, round*n, n, n)
		if round == rounds-1 {
			records = records[:n/2] // the others keep an older value
		}
		c.must(cl.BeginTransaction())
		for part := range slices.Chunk(records, 5) {
			c.must(cl.ProduceSync(c.ctx(), part...).FirstErr()) // a batch each
		}
		c.must(cl.EndTransaction(c.ctx(), kgo.TryCommit))
		wait.For(nil, 120*time.Millisecond) // so that the broker rolls a segment
	}
	c.produce(numbered(topic, rounds*n, 1, 1)[0]) // not in the segment that is compacted
	all := int64(rounds*n - n/2 + rounds + 1)
	if c.fake != nil {
		c.fake.Cluster().Compact()
	} else {
		backoff := "100"
		res, err := c.adm.AlterBrokerConfigs(c.ctx(), []kadm.AlterConfig{{Name: "log.cleaner.backoff.ms", Value: &backoff}})
		c.must(err)
		for _, r := range res {
			c.must(r.Err)
		}
	}
	var left map[string]bool
	eventually(t, "the topic is compacted", func() bool {
		left = c.read(topic, all)
		return len(left) < 3*n
	})
	j := newJournal()
	c.consume(c.config(), newDeduplicator(t, nil), "g-"+topic, topic, j.handle, nil)
	// The broker may have compacted more since.
	for value := range c.read(topic, all) {
		if j.runs[value] != 1 {
			t.Errorf("message %s: got %d runs, want 1", value, j.runs[value])
		}
	}
	for value := range j.runs {
		if !left[value] {
			t.Errorf("message %s was handed out, and is not in the topic", value)
		}
	}
}

// read returns the values that another client finds in partition 0, up to end.
func (c *cluster) read(topic string, end int64) map[string]bool {
	c.t.Helper()
	cl := c.client(kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	defer cl.Close()
	values := make(map[string]bool)
	for next := int64(0); next < end; {
		fetches := cl.PollFetches(c.ctx())
		c.must(fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				values[string(r.Value)] = true
			}
		})
	}
	return values
}

// topicCreatedAnew: a topic is deleted and created again under a running consumer,
// and holds more messages than the group had consumed of the old one.
func topicCreatedAnew(t *testing.T, c *cluster) {
	const partitions, before, after = 2, 100, 1000
	topic := c.newTopic(partitions, nil)
	c.produce(spread(partitions, numbered(topic, 0, before, before))...)
	j := newJournal()
	c.consume(c.config(), newDeduplicator(t, nil), "g-"+topic, topic, j.handle, func() {
		c.deleteTopic(topic)
		c.createTopic(topic, partitions, nil)
		c.produce(spread(partitions, numbered(topic, before, after, before))...)
		eventually(t, "the new topic is consumed from its beginning", func() bool { return j.seen() == before+after })
	})
	if len(j.runs) != before+after {
		t.Errorf("got %d messages, want %d", len(j.runs), before+after)
	}
}

// retentionOvertakes: messages are deleted before the group comes to them.
func retentionOvertakes(t *testing.T, c *cluster) {
	topic := c.newTopic(1, nil)
	group := "g-" + topic
	d := newDeduplicatorOver(t, memstore.New(nil), nil)
	c.produce(numbered(topic, 0, 10, 10)...)
	c.consume(c.config(), d, group, topic, newJournal().handle, nil)
	c.produce(numbered(topic, 10, 10, 10)...)
	c.deleteRecords(topic, 0, 15)
	err := newConsumer(t, c, group, c.config(), topic).Run(context.Background(), d, newJournal().handle)
	if !errors.Is(err, dedup.ErrHalted) || !errors.Is(err, errOutOfRange) {
		t.Errorf("Fail: got %v, want ErrHalted and errOutOfRange", err)
	}
	config := c.config()
	config.OutOfRange = Earliest
	j := newJournal()
	consumer := c.consume(config, d, group, topic, j.handle, nil)
	if got := consumer.Stats().Skipped; got != 5 {
		t.Errorf("Earliest: got %d offsets skipped, want 5", got)
	}
	j.check(t, 5)
}

// partitionsAdded: a topic that does not exist is waited for, while the others are
// consumed, and partitions that are added are picked up.
func partitionsAdded(t *testing.T, c *cluster) {
	topic := c.newTopic(1, nil)
	later := topic + "-later"
	c.produce(numbered(topic, 0, 100, 100)...)
	j := newJournal()
	consumer, d := newConsumer(t, c, "g-"+topic, c.config(), topic, later), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) })
	eventually(t, "the topic that exists is consumed", func() bool { return j.seen() == 100 })
	c.createTopic(later, 2, nil)
	t.Cleanup(func() { c.deleteTopic(later) })
	c.produce(spread(2, numbered(later, 100, 100, 100))...)
	eventually(t, "the topic that was created is consumed", func() bool { return j.seen() == 200 })
	c.addPartitions(topic, 4)
	c.produce(spread(4, numbered(topic, 200, 100, 100))...)
	eventually(t, "the new partitions are consumed", func() bool { return j.seen() == 300 })
	c.awaitCommitted("g-"+topic, topic)
	c.awaitCommitted("g-"+topic, later)
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, 300)
}

// lateHandler: the members do not share a store, so the new owner goes far past the
// message at which the old one is stuck. When that is settled at last, the committed
// offset does not move.
func lateHandler(t *testing.T, c *cluster) {
	const partitions, n = 2, 50
	topic := c.newTopic(partitions, nil)
	group := "g-" + topic
	c.produce(perPartition(topic, partitions, n)...)
	config := c.config()
	config.DrainTimeout = 200 * time.Millisecond
	h := newStuck(t)
	settled := make(chan struct{}, partitions)
	first := newConsumer(t, c, group, config, topic)
	d := newDeduplicator(t, &dedup.Options{Hooks: dedup.Hooks{Decided: func(e dedup.Event) {
		if strings.HasPrefix(string(e.Message.Value), "stuck") && e.Result.Settled() {
			settled <- struct{}{}
		}
	}}})
	r := start(t, func(ctx context.Context) error { return first.Run(ctx, d, h.handle) })
	eventually(t, "both partitions are stuck", func() bool { return h.started.Load() == partitions })
	j := newJournal()
	second, d2 := newConsumer(t, c, group, config, topic), newDeduplicator(t, nil)
	r2 := start(t, func(ctx context.Context) error { return second.Run(ctx, d2, j.handle) })
	ends := c.ends(topic)
	moved := int32(-1)
	eventually(t, "the new owner has committed the end of its partition", func() bool {
		for p, at := range c.committed(group, topic) {
			if at == ends[p] {
				moved = p
				return true
			}
		}
		return false
	})
	close(h.release)
	for range partitions {
		<-settled
	}
	eventually(t, "the late ones are counted", func() bool { return first.Stats().Late == partitions })
	for range 20 { // and more commits of both members
		if at := c.committed(group, topic)[moved]; at < ends[moved] {
			t.Fatalf("partition %d: committed %d, after %d", moved, at, ends[moved])
		}
		c.produce(spread(partitions, numbered(topic, 1000+rand.IntN(1e9), 1, 1))...)
	}
	c.awaitCommitted(group, topic)
	for _, r := range []*run{r, r2} {
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	}
}

// churn: members, each a process of its own, join, leave and are killed, while
// messages flow. All of them share the store of the hub.
func churn(t *testing.T, c *cluster, members int, lasts time.Duration) {
	const partitions, keys, each = 12, 200, 500
	topic := c.newTopic(partitions, nil)
	hub := transporttest.StartHub(t)
	running := make(map[string]*transporttest.Process)
	join := func(i int) {
		name := fmt.Sprint("member", i)
		running[name] = startMember(t, hub, c.addrs, topic, name, c.config().SessionTimeout)
	}
	produced, joined, kills := 0, 0, 0
	write := func() {
		var records []*kgo.Record
		for i, r := range numbered(topic, produced, each, keys) {
			records = append(records, r)
			if i%5 == 0 {
				again := *r
				records = append(records, &again)
			}
		}
		produced += each
		c.produce(spread(partitions, records)...)
	}
	deadline := time.Now().Add(lasts)
	for turn := 0; joined < members || time.Now().Before(deadline); turn++ {
		if produced-hub.Done() < 4*each { // as fast as they are
			write()
		}
		name := ""
		for name = range running { // any
			break
		}
		switch {
		case len(running) < 2 || len(running) < members && turn%3 == 0:
			join(joined)
			joined++
		case turn%3 == 1:
			running[name].Stop()
			delete(running, name)
		default:
			running[name].Kill()
			kills++
			delete(running, name)
		}
		done := hub.Done()
		eventually(t, "some progress", func() bool { return hub.Done() > done || hub.Done() >= produced })
		wait.For(nil, min(time.Until(deadline), lasts/20))
	}
	if len(running) == 0 {
		join(joined)
	}
	c.awaitCommitted("g-"+topic, topic)
	for _, m := range running {
		m.Stop()
	}
	ambiguous := hub.Check(t, produced)
	hub.CheckOrder(t)
	t.Logf("%d members, %d of them killed, %d messages, %d runs Ambiguous", joined, kills, produced, ambiguous)
}

func TestMembersComeGoAndAreKilled(t *testing.T) {
	churn(t, fakeCluster(t, nil), 3, time.Second)
}
