package kafkatransport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	produceapi "github.com/segmentio/kafka-go/protocol/produce"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// The vectors are those of the Java client's own test, UtilsTest.testMurmur2.
func TestMurmur2IsThatOfTheJavaClient(t *testing.T) {
	for key, want := range map[string]int32{
		"21":                         -973932308,
		"foobar":                     -790332482,
		"a-little-bit-long-string":   -985981536,
		"a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
		"abc": 479470107,
	} {
		if got := int32(murmur2([]byte(key))); got != want {
			t.Errorf("murmur2(%q): got %d, want %d", key, got, want)
		}
	}
}

func TestPartitionsAreThoseOfOtherClients(t *testing.T) {
	partitions := make([]int, 7)
	for i := range partitions {
		partitions[i] = i
	}
	java := kafka.Murmur2Balancer{Consistent: true}
	for i := range 1000 {
		key := bytes.Repeat([]byte{byte(i)}, i%40)
		if got, want := javaPartition(key, 7), java.Balance(kafka.Message{Key: key}, partitions...); got != want {
			t.Errorf("key of %d bytes %d: got partition %d, want %d", len(key), byte(i), got, want)
		}
	}
}

func message(value string) *dedup.Message {
	return &dedup.Message{Key: []byte("k"), Value: []byte(value)}
}

// effect says what an error of Publish makes of a message, by showing it to a
// Deduplicator: the package dedup does not reveal its marks otherwise.
func effect(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return "confirmed"
	}
	d := newDeduplicator(t, nil)
	m := &dedup.Message{Value: []byte("v"), Headers: dedup.Headers{{Key: dedup.HeaderIdempotencyKey, Value: []byte("1")}}}
	r := d.Do(context.Background(), m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, err })
	if r.Halt {
		return "permanent"
	}
	var claim dedup.Claim
	d.Do(context.Background(), m, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		claim = m.Claim
		return nil, nil
	})
	switch {
	case claim.Ambiguous:
		return "maybe done"
	case claim.Attempt == 1:
		return "transient"
	default:
		return "failed"
	}
}

// TestLeaderMovedAfterTheWrite: the code is the same before and after the write; the
// offsets tell.
func TestLeaderMovedAfterTheWrite(t *testing.T) {
	for _, x := range []struct {
		base, start int64
		want        string
	}{
		{-1, -1, "transient"},
		{0, -1, "transient"}, // kfake refuses at once
		{0, 0, "maybe done"},
		{1272, 18, "maybe done"},
	} {
		err := classify(&produceapi.ResponsePartition{ErrorCode: int16(kafka.NotLeaderForPartition), BaseOffset: x.base, LogStartOffset: x.start})
		if got := effect(t, err); got != x.want || errors.Is(err, errMoved) != (x.want == "transient") {
			t.Errorf("base offset %d, log from %d: got %v (%v), want %s", x.base, x.start, got, err, x.want)
		}
	}
}

func TestPublishErrorsByCode(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	sink := newSink(t, k, "t", nil)
	for _, x := range []struct {
		code *kerr.Error
		want string
	}{
		{kerr.NotEnoughReplicas, "transient"},
		{kerr.NotLeaderForPartition, "transient"},
		{kerr.LeaderNotAvailable, "transient"},
		{kerr.UnknownTopicOrPartition, "transient"},
		{kerr.TopicAuthorizationFailed, "transient"},
		{kerr.RequestTimedOut, "maybe done"},
		{kerr.NotEnoughReplicasAfterAppend, "maybe done"},
		{kerr.UnknownServerError, "maybe done"},
		{kerr.MessageTooLarge, "permanent"},
		{kerr.InvalidRecord, "permanent"},
		{kerr.InvalidTimestamp, "permanent"},
		{kerr.CorruptMessage, "failed"},
	} {
		fault := k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Err: x.code, Count: -1})
		err := sink.Publish(context.Background(), []*dedup.Message{message("v")})[0]
		fault.Remove()
		if got := effect(t, err); got != x.want {
			t.Errorf("%s: got %s (%v), want %s", x.code.Message, got, err, x.want)
		}
		wantErrorHas(t, err, "t/0")
	}
	if err := sink.Publish(context.Background(), []*dedup.Message{message("v")})[0]; err != nil {
		t.Errorf("no fault: got %v, want nil", err)
	}
}

func TestPublishFindsMovedLeader(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 4}, &brokertest.KafkaOptions{Brokers: 3})
	sink := newSink(t, k, "t", nil)
	for i := range 5 {
		for p := range int32(4) {
			if err := k.Cluster().MoveTopicPartition("t", p, int32(i)%3); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the message is written", func() bool {
			return sink.Publish(context.Background(), []*dedup.Message{message(fmt.Sprint(i))})[0] == nil
		})
	}
	if got := len(readAll(t, k, "t")); got != 5 {
		t.Errorf("got %d records, want 5", got)
	}
}

func readAll(t *testing.T, k *brokertest.Kafka, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	records, err := k.ReadTopic(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func TestPublishToNobodyIsTransient(t *testing.T) {
	addr := unusedAddr(t)
	sink := newSinkTo(t, []string{addr}, "t", nil)
	err := sink.Publish(context.Background(), []*dedup.Message{message("v")})[0]
	if got := effect(t, err); got != "transient" {
		t.Errorf("got %s (%v), want transient", got, err)
	}
	wantError(t, err, addr, "connection refused")
}

func TestPublishToStoppedBrokerIsTransient(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, &brokertest.KafkaOptions{Durable: true})
	sink := newSink(t, k, "t", nil)
	publish := func() error { return sink.Publish(context.Background(), []*dedup.Message{message("v")})[0] }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	k.Stop()
	// The first call may find a connection that it cannot know to be dead.
	if got := effect(t, publish()); got != "transient" && got != "maybe done" {
		t.Errorf("first call after the stop: got %s", got)
	}
	err := publish()
	if got := effect(t, err); got != "transient" {
		t.Errorf("second call after the stop: got %s (%v), want transient", got, err)
	}
	if err := k.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the broker is found again", func() bool { return publish() == nil })
}

func TestPublishWithoutAnswerMayBeDone(t *testing.T) {
	for _, x := range []struct {
		name string
		err  error // nil: no answer; else the connection breaks
	}{{"connection breaks", errors.New("break")}, {"no answer", nil}} {
		t.Run(x.name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
			config := &SinkConfig{}
			if x.err == nil {
				config.Timeout = 5 * time.Second // enough to send what is not answered
			}
			sink := newSink(t, k, "t", config)
			eventually(t, "a message is written", func() bool { // else connecting would take of the time
				return sink.Publish(context.Background(), []*dedup.Message{message("v")})[0] == nil
			})
			var requests atomic.Int32
			cluster := k.Cluster()
			cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				requests.Add(1)
				return nil, x.err, true
			})
			errs := sink.Publish(context.Background(), []*dedup.Message{message("v")})
			if got := effect(t, errs[0]); got != "maybe done" {
				t.Errorf("got %s (%v), want maybe done", got, errs[0])
			}
			if got := requests.Load(); got != 1 {
				t.Errorf("got %d requests, want 1: an unknown outcome is not tried again", got)
			}
		})
	}
}

func TestPublishWhoseContextEnds(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	sink := newSink(t, k, "t", nil)
	ctx, cancel := context.WithCancel(context.Background())
	k.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cancel()
		return nil, nil, true
	})
	err := sink.Publish(ctx, []*dedup.Message{message("v")})[0]
	if got := effect(t, err); got != "maybe done" || !errors.Is(err, context.Canceled) {
		t.Errorf("ended while the broker has it: got %s (%v), want maybe done, context.Canceled", got, err)
	}
	err = sink.Publish(ctx, []*dedup.Message{message("v")})[0]
	if got := effect(t, err); got != "transient" {
		t.Errorf("ended before: got %s (%v), want transient", got, err)
	}
	if got := len(readAll(t, k, "t")); got != 0 {
		t.Errorf("got %d records, want 0", got)
	}
}

func TestGateShutSendsNothing(t *testing.T) {
	g := newGate(1)
	if !g.shut() {
		t.Error("an unused gate: got begun, want unsent")
	}
	r := &outgoing{gate: g, messages: []*dedup.Message{message("v")}, indices: []int{0}}
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, errGateShut) {
		t.Errorf("a shut gate: got %v, want errGateShut", err)
	}
}

func TestPublishToUnknownTopic(t *testing.T) {
	k := brokertest.NewKafka(t, nil, nil)
	sink := newSink(t, k, "", nil)
	m := message("v")
	m.Topic = "later"
	err := sink.Publish(context.Background(), []*dedup.Message{m})[0]
	if got := effect(t, err); got != "transient" {
		t.Errorf("got %s (%v), want transient", got, err)
	}
	wantError(t, err, "later", "does not exist", "create it")
	if err := k.Cluster().CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic is found once it exists", func() bool {
		return sink.Publish(context.Background(), []*dedup.Message{m})[0] == nil
	})
	m.Topic = "no such/name"
	if got := effect(t, sink.Publish(context.Background(), []*dedup.Message{m})[0]); got != "permanent" {
		t.Errorf("impossible topic: got %s, want permanent", got)
	}
}

func TestPublishKeepsOrderAndSplitsBatches(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	sink := newSink(t, k, "t", &SinkConfig{BatchBytes: 1000})
	var ms []*dedup.Message
	for i := range 600 {
		ms = append(ms, &dedup.Message{Key: fmt.Appendf(nil, "k%d", i%20), Value: fmt.Appendf(nil, "%04d", i)})
	}
	for i, err := range sink.Publish(context.Background(), ms) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	last := map[int32]string{}
	records := readAll(t, k, "t")
	for _, r := range records {
		if string(r.Value) <= last[r.Partition] {
			t.Errorf("partition %d: %s after %s", r.Partition, r.Value, last[r.Partition])
		}
		last[r.Partition] = string(r.Value)
	}
	if len(records) != 600 || len(last) != 3 {
		t.Errorf("got %d records in %d partitions, want 600 in 3", len(records), len(last))
	}
}

func TestPublishHoldsBackWhatComesAfterAFailure(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	sink := newSink(t, k, "t", &SinkConfig{BatchBytes: 1}) // a batch for each
	k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Err: kerr.RequestTimedOut, Count: 1,
		When: func(r kmsg.Request) bool {
			return bytes.Contains(r.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records, []byte("two"))
		}})
	errs := sink.Publish(context.Background(), []*dedup.Message{message("one"), message("two"), message("three")})
	for i, want := range []string{"confirmed", "maybe done", "transient"} {
		if got := effect(t, errs[i]); got != want {
			t.Errorf("message %d: got %s (%v), want %s", i, got, errs[i], want)
		}
	}
	for _, r := range readAll(t, k, "t") {
		if string(r.Value) == "three" {
			t.Error("the message after the failed one was written")
		}
	}
}

// A call is one request to each broker, and a partition that fails does not fail the
// others in it.
func TestPublishAsksEachBrokerOnce(t *testing.T) {
	const partitions = 12
	k := brokertest.NewKafka(t, map[string]int32{"t": partitions}, &brokertest.KafkaOptions{Brokers: 3})
	leads := make(map[int32]bool)
	for p := range int32(partitions) {
		if err := k.Cluster().MoveTopicPartition("t", p, p%3); err != nil {
			t.Fatal(err)
		}
		leads[p%3] = true
	}
	var ms []*dedup.Message
	for i := range 10 * partitions {
		ms = append(ms, &dedup.Message{Value: fmt.Append(nil, i), Position: dedup.Position{Source: "s", Partition: int32(i % partitions)}})
	}
	var requests atomic.Int32
	k.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		requests.Add(1)
		return nil, nil, false
	})
	sink := newSink(t, k, "t", nil)
	for i, err := range sink.Publish(context.Background(), ms) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	if got := requests.Load(); got != int32(len(leads)) {
		t.Errorf("got %d requests, want %d", got, len(leads))
	}

	const bad = 4
	k.Cluster().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "t", Partitions: []int32{bad}, Err: kerr.NotEnoughReplicas, Count: -1})
	for i, err := range sink.Publish(context.Background(), ms) {
		want := "confirmed"
		if i%partitions == bad {
			want = "transient"
		}
		if got := effect(t, err); got != want {
			t.Errorf("message %d: got %s (%v), want %s", i, got, err, want)
		}
	}
	if got, want := len(readAll(t, k, "t")), len(ms)+len(ms)*(partitions-1)/partitions; got != want {
		t.Errorf("got %d records, want %d", got, want)
	}
}

func TestPublishTooLargeRefusesOnlyThat(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, &brokertest.KafkaOptions{More: []kfake.Opt{
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "2000"}),
	}})
	sink := newSink(t, k, "t", nil)
	ms := []*dedup.Message{message("a"), message("b"), message(strings.Repeat("x", 3000)), message("c"), message("d")}
	errs := sink.Publish(context.Background(), ms)
	for i, err := range errs {
		want := "confirmed"
		if i == 2 {
			want = "permanent"
		}
		if got := effect(t, err); got != want {
			t.Errorf("message %d: got %s (%v), want %s", i, got, err, want)
		}
	}
	wantErrorHas(t, errs[2], "t/0", "max.message.bytes")
	var values []string
	for _, r := range readAll(t, k, "t") {
		values = append(values, string(r.Value))
	}
	if got := strings.Join(values, ""); got != "abcd" {
		t.Errorf("got records %q, want abcd", got)
	}
}

func TestPublishWithoutKey(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 3}, nil)
	sink := newSink(t, k, "t", nil)
	var ms []*dedup.Message
	for _, p := range []int32{2, 0, 7, 7, 7} { // there is no 7: any partition will do
		ms = append(ms, &dedup.Message{Value: fmt.Append(nil, p), Position: dedup.Position{Source: "s", Partition: p}})
	}
	for i, err := range sink.Publish(context.Background(), ms) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	elsewhere := map[int32]bool{}
	for _, r := range readAll(t, k, "t") {
		if v := string(r.Value); v == "7" {
			elsewhere[r.Partition] = true
		} else if v != fmt.Sprint(r.Partition) {
			t.Errorf("message from partition %s: got partition %d", v, r.Partition)
		}
	}
	if len(elsewhere) != 3 {
		t.Errorf("three messages without a partition of their own: got %d partitions, want 3", len(elsewhere))
	}
}

func TestPublishAfterClose(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	sink := newSink(t, k, "t", nil)
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sink.Publish(context.Background(), []*dedup.Message{message("v")})[0]; !errors.Is(err, errSinkClosed) {
		t.Errorf("got %v, want errSinkClosed", err)
	}
}

// TestRecordsPassUnchanged writes with the sink and reads with the consumer.
func TestRecordsPassUnchanged(t *testing.T) {
	for _, compression := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		t.Run(compression.String(), func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
			sink := newSink(t, k, "t", &SinkConfig{Compression: compression})
			stamp := time.UnixMilli(1_700_000_000_123)
			id := func(n int) dedup.Header {
				return dedup.Header{Key: dedup.HeaderIdempotencyKey, Value: fmt.Append(nil, n)}
			}
			want := []*dedup.Message{
				{Key: []byte("key"), Value: []byte("value"), Headers: dedup.Headers{id(0), {Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}, {Key: "b", Value: nil}, {Key: "", Value: []byte{}}}, Published: stamp},
				{Key: nil, Value: []byte("no key"), Headers: dedup.Headers{id(1)}, Published: stamp},
				{Key: []byte("no value"), Value: nil, Headers: dedup.Headers{id(2)}, Published: stamp},
				{Key: []byte{}, Value: []byte{}, Headers: dedup.Headers{id(3)}, Published: stamp},
				{Key: []byte("large"), Value: bytes.Repeat([]byte("0123456789"), 80_000), Headers: dedup.Headers{id(4)}, Published: stamp},
			}
			for i, err := range sink.Publish(context.Background(), want) {
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			got := make(chan dedup.Message, len(want))
			c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicator(t, nil)
			r := start(t, func(ctx context.Context) error {
				return c.RunBatch(ctx, d, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
					for _, m := range ms {
						got <- *m
					}
					return make([]dedup.Answer, len(ms))
				})
			})
			for i, w := range want {
				g := <-got
				if !bytes.Equal(g.Key, w.Key) || (g.Key == nil) != (w.Key == nil) {
					t.Errorf("message %d: got key %#v, want %#v", i, g.Key, w.Key)
				}
				if !bytes.Equal(g.Value, w.Value) || (g.Value == nil) != (w.Value == nil) {
					t.Errorf("message %d: got a value of %d bytes, want %d", i, len(g.Value), len(w.Value))
				}
				if fmt.Sprintf("%#v", g.Headers) != fmt.Sprintf("%#v", w.Headers) {
					t.Errorf("message %d: got headers %#v, want %#v", i, g.Headers, w.Headers)
				}
				if !g.Published.Equal(stamp) {
					t.Errorf("message %d: got timestamp %v, want %v", i, g.Published, stamp)
				}
				if position := (dedup.Position{Source: "t", Partition: 0, Offset: int64(i)}); g.Position != position || g.Topic != "t" || g.Delivery != 0 {
					t.Errorf("message %d: got %v of topic %s, delivery %d, want %v, t, 0", i, g.Position, g.Topic, g.Delivery, position)
				}
			}
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
		})
	}
}
