package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestNewPartitionsAndTopicsArePickedUp(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	produce(t, k, numbered("t", 0, 100, 100)...)
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t", "later"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the topic that exists is consumed although the other does not", func() bool { return complete(k, "g", "t") && j.seen() == 100 })

	if err := k.Cluster().CreateTopic("later", 2, nil); err != nil {
		t.Fatal(err)
	}
	produce(t, k, numbered("later", 100, 100, 100)...)
	eventually(t, "the topic that was created is consumed", func() bool { return complete(k, "g", "later") && j.seen() == 200 })

	addPartitions(t, k, "t", 4)
	records := numbered("t", 200, 100, 100)
	for i, r := range records {
		r.Partition = int32(i % 4)
	}
	pinned(t, k, records...)
	eventually(t, "the new partitions are consumed", func() bool { return complete(k, "g", "t") && j.seen() == 300 })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, 300)
}

// TestPartitionsThatTheLeaderWasNotToldOf: the member that assigns the partitions
// asks a broker that does not know of the new ones yet, and looks for them at one
// that does.
func TestPartitionsThatTheLeaderWasNotToldOf(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	behind := make(chan *kmsg.MetadataRequest, 1)
	k.Cluster().ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		req := r.(*kmsg.MetadataRequest)
		k.Cluster().KeepControl()
		if !req.AllowAutoTopicCreation || len(behind) > 0 { // kafka-go's leaders allow it
			return nil, nil, false
		}
		behind <- req
		return onePartition(t, k, req), nil, true
	})
	addPartitions(t, k, "t", 2)
	records := numbered("t", 0, 2, 2)
	records[1].Partition = 1
	pinned(t, k, records...)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the new partition is consumed", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	if len(behind) == 0 {
		t.Error("the leader did not ask")
	}
	j.check(t, 2)
}

// onePartition answers as a broker that knows of one partition of topic t.
func onePartition(t *testing.T, k *brokertest.Kafka, req *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	t.Helper()
	host, port, err := net.SplitHostPort(k.Addrs()[0])
	if err != nil {
		t.Error(err)
	}
	broker := kmsg.NewMetadataResponseBroker()
	broker.Host = host
	if n, err := strconv.Atoi(port); err == nil {
		broker.Port = int32(n)
	}
	topic := kmsg.NewMetadataResponseTopic()
	topic.Topic, topic.Partitions = kmsg.StringPtr("t"), []kmsg.MetadataResponseTopicPartition{kmsg.NewMetadataResponseTopicPartition()}
	res := req.ResponseKind().(*kmsg.MetadataResponse)
	res.Brokers, res.Topics = []kmsg.MetadataResponseBroker{broker}, []kmsg.MetadataResponseTopic{topic}
	return res
}

func addPartitions(t *testing.T, k *brokertest.Kafka, topic string, n int32) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	req := kmsg.NewPtrCreatePartitionsRequest()
	rt := kmsg.NewCreatePartitionsRequestTopic()
	rt.Topic, rt.Count = topic, n
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 5000
	res, err := req.RequestWith(context.Background(), cl)
	if err != nil || res.Topics[0].ErrorCode != 0 {
		t.Fatalf("create partitions: %v, %+v", err, res)
	}
}

func TestRetentionThatOvertookTheGroupHalts(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	produce(t, k, numbered("t", 0, 10, 10)...)
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	produce(t, k, numbered("t", 10, 10, 10)...)
	if err := k.Cluster().DeleteRecords("t", 0, 15); err != nil {
		t.Fatal(err)
	}
	err := c.Run(context.Background(), d, newJournal().handle)
	if !errors.Is(err, dedup.ErrHalted) || !errors.Is(err, errOutOfRange) {
		t.Errorf("Run: got %v, want ErrHalted and errOutOfRange", err)
	}
	wantErrorHas(t, err, "t/0 at 10 begins at 15", "5 messages were deleted unread")
}

// TestOutOfRange: what the policies make of an offset that is gone.
func TestOutOfRange(t *testing.T) {
	for _, x := range []struct {
		name    string
		policy  OffsetPolicy
		spoil   func(*testing.T, *brokertest.Kafka) // after offset 10 was committed, with 10 more messages
		from    int                                 // the first message after that
		skipped int64
	}{
		{"deleted, earliest", Earliest, deleteTo(15), 15, 5},
		{"deleted, latest", Latest, deleteTo(15), 20, 10},
		{"beyond the end, earliest", Earliest, commitAt(1000), 0, 0},
		{"beyond the end, latest", Latest, commitAt(1000), 20, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
			produce(t, k, numbered("t", 0, 10, 10)...)
			config := quick(t)
			config.OutOfRange = x.policy
			d := newDeduplicatorOver(t, memstore.New(nil), nil)
			c, j := newConsumer(t, k, "g", config, "t"), newJournal()
			r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
			eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			produce(t, k, numbered("t", 10, 10, 10)...)
			x.spoil(t, k)
			r = start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
			eventually(t, "the group has committed the end", func() bool { return complete(k, "g", "t") })
			produce(t, k, numbered("t", 20, 10, 10)...)
			eventually(t, "the group has committed the new end", func() bool { return complete(k, "g", "t") })
			if got := c.Stats().Skipped; got != x.skipped {
				t.Errorf("got %d offsets skipped, want %d", got, x.skipped)
			}
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			for i := range 30 {
				want := 1
				if i >= 10 && i < x.from {
					want = 0
				}
				if got := j.runs[fmt.Sprint(i)]; got != want {
					t.Errorf("message %d: got %d runs, want %d", i, got, want)
				}
			}
		})
	}
}

func deleteTo(offset int64) func(*testing.T, *brokertest.Kafka) {
	return func(t *testing.T, k *brokertest.Kafka) {
		t.Helper()
		if err := k.Cluster().DeleteRecords("t", 0, offset); err != nil {
			t.Fatal(err)
		}
	}
}

func commitAt(offset int64) func(*testing.T, *brokertest.Kafka) {
	return func(t *testing.T, k *brokertest.Kafka) {
		t.Helper()
		cl := &kafka.Client{Addr: kafka.TCP(k.Addrs()...), Transport: &kafka.Transport{}}
		defer cl.Transport.(*kafka.Transport).CloseIdleConnections()
		res, err := cl.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{
			GroupID: "g", GenerationID: -1,
			Topics: map[string][]kafka.OffsetCommit{"t": {{Offset: offset}}},
		})
		if err != nil || res.Topics["t"][0].Error != nil {
			t.Fatalf("commit %d: %v, %+v", offset, err, res)
		}
	}
}

// TestTopicCreatedAnew: a topic is deleted and created again under a running
// consumer, and holds more messages than the group had consumed of the old one. The
// coordinator may have the offsets of the old one for a while.
func TestTopicCreatedAnew(t *testing.T) {
	for _, answers := range []int32{0, 5} {
		t.Run(fmt.Sprint(answers, " late answers"), func(t *testing.T) { testTopicCreatedAnew(t, answers) })
	}
}

// testTopicCreatedAnew has the group give so many answers of the old topic.
func testTopicCreatedAnew(t *testing.T, answers int32) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	produce(t, k, numbered("t", 0, 100, 100)...)
	j := newJournal()
	c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") && j.seen() == 100 })
	var late atomic.Int32
	late.Store(answers)
	k.Cluster().ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		if late.Add(-1) < 0 {
			return nil, nil, false
		}
		res := r.ResponseKind().(*kmsg.OffsetFetchResponse)
		for _, asked := range r.(*kmsg.OffsetFetchRequest).Topics {
			topic := kmsg.NewOffsetFetchResponseTopic()
			topic.Topic = asked.Topic
			for _, n := range asked.Partitions {
				p := kmsg.NewOffsetFetchResponseTopicPartition()
				p.Partition, p.Offset, p.Metadata = n, 50, kmsg.StringPtr("")
				topic.Partitions = append(topic.Partitions, p)
			}
			res.Topics = append(res.Topics, topic)
		}
		return res, nil, true
	})
	missing := k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "t", Err: kerr.UnknownTopicOrPartition, Count: 2})
	if err := k.Cluster().DeleteTopic("t"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a fetch is told so", func() bool { return missing.Hits() > 0 })
	if err := k.Cluster().CreateTopic("t", 2, nil); err != nil {
		t.Fatal(err)
	}
	const again = 1000
	produce(t, k, numbered("t", 100, again, 100)...)
	eventually(t, "the new topic is consumed from its beginning", func() bool { return complete(k, "g", "t") && j.seen() == 100+again })
	if late.Load() >= 0 {
		t.Errorf("%d late answers were not asked for: want all", late.Load())
	}
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}

func TestStartOffset(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	produce(t, k, numbered("t", 0, 10, 10)...)
	if err := k.Cluster().DeleteRecords("t", 0, 4); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		start int64
		want  int // messages of the first ten
	}{{kafka.FirstOffset, 6}, {kafka.LastOffset, 0}} {
		group := fmt.Sprint("g", x.start)
		config := quick(t)
		config.StartOffset = x.start
		j := newJournal()
		c, d := newConsumer(t, k, group, config, "t"), newDeduplicator(t, nil)
		r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
		// Also where nothing was consumed: else a restart would skip what came meanwhile.
		eventually(t, "the group has committed the end", func() bool { return complete(k, group, "t") })
		if got := j.seen(); got != x.want {
			t.Errorf("StartOffset %d: got %d messages, want %d", x.start, got, x.want)
		}
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
	}
}

// TestTransactions: records of aborted transactions and the markers are not
// handed out, and are committed past.
func TestTransactions(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.TransactionalID("x"), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx := context.Background()
	transaction := func(commit kgo.TransactionEndTry, from, n int) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(ctx, numbered("t", from, n, 10)...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(ctx, commit); err != nil {
			t.Fatal(err)
		}
	}
	outside := func(n int) *kgo.Record {
		r := numbered("t", n, 1, 1)[0]
		r.Key = []byte("outside")
		return r
	}
	want := 0
	for i := range 6 {
		commit := kgo.TransactionEndTry(i%2 == 0)
		transaction(commit, i*50, 50)
		if commit {
			want += 50
		}
		produce(t, k, outside(1000+i)) // of any transaction
		want++
	}
	config := quick(t)
	config.FetchMaxBytes = 2000 // so that transactions span fetches
	j := newJournal()
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	eventually(t, "the group has committed the end, trailing marker included", func() bool { return complete(k, "g", "t") })

	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(ctx, numbered("t", 2000, 10, 10)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	produce(t, k, outside(1100)) // behind an open transaction
	if got := j.seen(); got != want {
		t.Errorf("got %d messages while a transaction is open, want %d", got, want)
	}
	if err := cl.EndTransaction(ctx, kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	want++
	eventually(t, "the group has committed the end", func() bool { return complete(k, "g", "t") })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, want)
	for value := range j.runs {
		var n int
		if _, err := fmt.Sscan(value, &n); err != nil || n >= 2000 || n < 1000 && n/50%2 == 1 {
			t.Errorf("message %q of an aborted transaction was handed out", value)
		}
	}
}

// TestTopicCreatedAnewNoticedByOnePartition: the other one is not asked for while the
// topic is gone, and finds its offset in the new log.
func TestTopicCreatedAnewNoticedByOnePartition(t *testing.T) {
	const partitions, before, after = 2, 100, 1000
	c := fakeCluster(t, nil)
	topic := c.newTopic(partitions, nil)
	c.produce(spread(partitions, numbered(topic, 0, before, before))...)
	config := quick(t)
	config.watchInterval = time.Hour // so that only the fetches tell
	j := newJournal()
	consumer, d := newConsumer(t, c, "g", config, topic), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) })
	c.awaitCommitted("g", topic)

	var cut, silent atomic.Int32 // whose fetches break, and whose have no answer; -1: nobody's
	cut.Store(1)
	silent.Store(-1)
	cluster := c.fake.Cluster()
	cluster.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		switch r.(*kmsg.FetchRequest).Topics[0].Partitions[0].Partition {
		case cut.Load():
			return nil, errors.New("cut"), true
		case silent.Load():
			return nil, nil, true
		}
		return nil, nil, false
	})
	g := consumer.session.Load().current.Load()
	eventually(t, "the fetches of one are cut", func() bool { return slices.Contains(consumer.Status().Failing, topic+"/1") })
	c.deleteTopic(topic)
	eventually(t, "the other one misses its topic", func() bool {
		return slices.ContainsFunc(g.fetchers, func(f *fetcher) bool { return f.Number == 0 && f.Gone() })
	})
	silent.Store(0)
	c.createTopic(topic, partitions, nil)
	c.produce(spread(partitions, numbered(topic, before, after, before))...)
	cut.Store(-1)
	eventually(t, "this member has joined anew", func() bool {
		now := consumer.session.Load().current.Load()
		return now != nil && now != g
	})
	silent.Store(-1)
	eventually(t, "the new topic is consumed from its beginning", func() bool { return j.seen() == before+after })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
}
