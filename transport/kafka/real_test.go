//go:build real

package kafkatransport_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

const (
	realPartitions = 6
	realMessages   = 20_000
	realDuplicates = realMessages / 5
	realKeys       = 300             // of Kafka: the messages of one are handled in order
	realDeadline   = 5 * time.Minute // of a test; a slow machine needs more than one
)

// TestRealHandover publishes with Sink and consumes with one member, then two,
// then the other one alone, while 20 % of the messages are duplicates: every
// message is handled once and in the order of its key, and the committed offsets
// end where the topic does.
func TestRealHandover(t *testing.T) {
	for _, mode := range []struct {
		name string
		run  func(context.Context, *kafkatransport.Consumer, *dedup.Deduplicator, dedup.Handler) error
	}{
		{"Run", func(ctx context.Context, c *kafkatransport.Consumer, d *dedup.Deduplicator, h dedup.Handler) error {
			return c.Run(ctx, d, h)
		}},
		{"RunBatch", func(ctx context.Context, c *kafkatransport.Consumer, d *dedup.Deduplicator, h dedup.Handler) error {
			return c.RunBatch(ctx, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
				answers := make([]dedup.Answer, len(ms))
				for i, m := range ms {
					answers[i].Result, answers[i].Err = h(ctx, m)
				}
				return answers
			})
		}},
	} {
		t.Run(mode.name, func(t *testing.T) { testHandover(t, mode.run) })
	}
}

func testHandover(t *testing.T, run func(context.Context, *kafkatransport.Consumer, *dedup.Deduplicator, dedup.Handler) error) {
	ctx, cancel := context.WithTimeout(t.Context(), realDeadline)
	defer cancel()
	cluster := newRealCluster(t)
	topic, group := cluster.createTopic(ctx, t), "group-"+rand.Text()
	sink, err := kafkatransport.NewSink(cluster.brokers, topic, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	orders := newOrders(topic)
	store := memstore.New(&memstore.Options{VouchFrom: time.Now().Add(-time.Hour)}) // so that nothing is Stale
	work := newHandled(realMessages / 10)

	start := func(name string) (stop func()) {
		d, err := dedup.New(store, "real", dedup.HeaderKey(dedup.HeaderIdempotencyKey), nil)
		if err != nil {
			t.Fatal(err)
		}
		consumer, err := kafkatransport.NewConsumer(cluster.brokers, group, []string{topic}, &kafkatransport.Config{
			ClientID: name,
			// Long enough for a slow machine: a member that the group gives up
			// leaves runs that are flagged.
			SessionTimeout:    20 * time.Second,
			HeartbeatInterval: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- run(ctx, consumer, d, work.handler(name)) }()
		stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s: Run ended with %v, want nil", name, err)
			}
			if err := d.Shutdown(context.Background()); err != nil {
				t.Errorf("%s: Shutdown: %v", name, err)
			}
		})
		t.Cleanup(stop)
		return stop
	}

	// The first member is alone, and its handlers stand still until the second one
	// has asked to join: the rebalance finds messages in flight.
	publish(ctx, t, sink, orders[:len(orders)/2])
	stopFirst := start("first")
	work.await(ctx, t, work.halfway)
	start("second")
	cluster.awaitGroup(ctx, t, group, "a rebalance, or two members", func(state string, members int) bool {
		return state == "PreparingRebalance" || members == 2
	})
	close(work.release)

	// Both work; the first one leaves in the middle.
	cluster.awaitGroup(ctx, t, group, "two members at work", func(state string, members int) bool {
		return state == "Stable" && members == 2
	})
	rest := orders[len(orders)/2:]
	publish(ctx, t, sink, rest[:len(rest)/2])
	work.await(ctx, t, work.second)
	stopFirst()
	publish(ctx, t, sink, rest[len(rest)/2:])

	cluster.awaitCommitted(ctx, t, group, topic)
	work.check(t, orders)
}

// newOrders returns the messages to publish: each Kafka key has its own sequence,
// the value names both, and one message in five is a copy of an earlier one, as
// often near as far away.
func newOrders(topic string) []*dedup.Message {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	next := make([]int, realKeys)
	var unique, all []*dedup.Message
	for len(all) < realMessages {
		left, copies := realMessages-len(all), realDuplicates-(len(all)-len(unique))
		if len(unique) > 0 && random.IntN(left) < copies {
			span := len(unique)
			if random.IntN(2) == 0 {
				span = min(span, 10)
			}
			original := *unique[len(unique)-1-random.IntN(span)]
			all = append(all, &original)
			continue
		}
		k := random.IntN(realKeys)
		m := &dedup.Message{
			Topic: topic,
			Key:   fmt.Appendf(nil, "customer-%d", k),
			Value: fmt.Appendf(nil, "customer-%d %d", k, next[k]),
		}
		m.Headers.SetKey(dedup.Key(fmt.Sprintf("order-%d-%d", k, next[k])))
		next[k]++
		unique, all = append(unique, m), append(all, m)
	}
	return all
}

func publish(ctx context.Context, t *testing.T, sink *kafkatransport.Sink, ms []*dedup.Message) {
	t.Helper()
	for i, err := range publishAll(ctx, sink, ms) {
		if err != nil {
			t.Fatalf("Publish: message %d of %d: %v", i, len(ms), err)
		}
	}
}

// publishAll publishes again, in their order, what is not confirmed and not refused
// for good: brokers on a busy machine may take too long to answer.
func publishAll(ctx context.Context, sink *kafkatransport.Sink, ms []*dedup.Message) []error {
	errs := make([]error, len(ms))
	left := make([]int, len(ms))
	for i := range left {
		left[i] = i
	}
	for len(left) > 0 {
		part := make([]*dedup.Message, len(left))
		for i, at := range left {
			part[i] = ms[at]
		}
		var again []int
		for i, err := range sink.Publish(ctx, part) {
			errs[left[i]] = err
			if err != nil && !driver.IsPermanent(err) && ctx.Err() == nil {
				again = append(again, left[i])
			}
		}
		left = again
	}
	return errs
}

// handled remembers what the handlers of all members saw.
type handled struct {
	gate    int           // handlers stand still from that many on
	halfway chan struct{} // closed when they do
	release chan struct{} // closed by the test to let them go on
	second  chan struct{} // closed when the second member has handled a message

	mu      sync.Mutex
	count   int
	orders  map[string][]int // by Kafka key, the sequence numbers as they came
	flagged []dedup.Claim
	seconds int
}

func newHandled(gate int) *handled {
	return &handled{
		gate:    gate,
		halfway: make(chan struct{}),
		release: make(chan struct{}),
		second:  make(chan struct{}),
		orders:  make(map[string][]int),
	}
}

func (h *handled) handler(member string) dedup.Handler {
	return func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		var customer string
		var n int
		if _, err := fmt.Sscanf(string(m.Value), "%s %d", &customer, &n); err != nil {
			return nil, err
		}
		if h.add(member, customer, n, m.Claim) {
			select {
			case <-h.release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return nil, nil
	}
}

// add notes a run and tells whether it must wait at the gate.
func (h *handled) add(member, customer string, n int, claim dedup.Claim) (wait bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.orders[customer] = append(h.orders[customer], n)
	if claim.Ambiguous || claim.Stale || claim.Attempt != 1 {
		h.flagged = append(h.flagged, claim)
	}
	if member == "second" {
		if h.seconds++; h.seconds == 1 {
			close(h.second)
		}
	}
	if h.count++; h.count == h.gate {
		close(h.halfway)
	}
	return h.count >= h.gate
}

func (h *handled) await(ctx context.Context, t *testing.T, event <-chan struct{}) {
	t.Helper()
	select {
	case <-event:
	case <-ctx.Done():
		h.mu.Lock()
		defer h.mu.Unlock()
		t.Fatalf("after %v: %d messages handled, %d of them by the second member", realDeadline, h.count, h.seconds)
	}
}

// check compares what was handled with what was published.
func (h *handled) check(t *testing.T, orders []*dedup.Message) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	want := make(map[string]int) // by Kafka key, how many sequence numbers it has
	for _, m := range orders {
		var customer string
		var n int
		if _, err := fmt.Sscanf(string(m.Value), "%s %d", &customer, &n); err != nil {
			t.Fatal(err)
		}
		want[customer] = max(want[customer], n+1)
	}
	if unique := realMessages - realDuplicates; h.count != unique {
		t.Errorf("handlers ran %d times for %d messages of which %d are copies, want %d", h.count, realMessages, realDuplicates, unique)
	}
	for customer, n := range want {
		got := h.orders[customer]
		for i := range max(n, len(got)) {
			if i >= len(got) || got[i] != i {
				t.Errorf("%s: handled %v, want 0 to %d in order", customer, got, n-1)
				break
			}
		}
	}
	if len(h.flagged) > 0 {
		t.Errorf("%d runs were flagged or repeated, want none; the first: %+v", len(h.flagged), h.flagged[0])
	}
}

// realCluster is the brokers that the environment names.
type realCluster struct {
	brokers []string
	client  *kafka.Client
}

func newRealCluster(t *testing.T) *realCluster {
	t.Helper()
	list := os.Getenv("KAFKA_BROKERS")
	if list == "" {
		const missing = "KAFKA_BROKERS is not set: run make test-real, or set it to HOST:PORT,... of your own"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	brokers := strings.Split(list, ",")
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &realCluster{brokers, &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}}
}

// createTopic returns the name of a new topic, known to the whole cluster.
func (c *realCluster) createTopic(ctx context.Context, t *testing.T) string {
	t.Helper()
	topic := "orders-" + rand.Text()
	resp, err := c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: realPartitions, ReplicationFactor: -1}},
	})
	if err == nil {
		err = resp.Errors[topic]
	}
	if err != nil {
		t.Fatalf("create topic %s: %v", topic, err)
	}
	poll(ctx, t, "the topic's partitions to have leaders", func() (bool, string) {
		ends, err := c.ends(ctx, topic)
		return err == nil && len(ends) == realPartitions, fmt.Sprintf("%v, %v", ends, err)
	})
	return topic
}

func (c *realCluster) ends(ctx context.Context, topic string) (map[int]int64, error) {
	var want []kafka.OffsetRequest
	for p := range realPartitions {
		want = append(want, kafka.LastOffsetOf(p))
	}
	resp, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: want}})
	if err != nil {
		return nil, err
	}
	ends := make(map[int]int64)
	for _, p := range resp.Topics[topic] {
		if p.Error != nil {
			return nil, p.Error
		}
		ends[p.Partition] = p.LastOffset
	}
	return ends, nil
}

// awaitCommitted waits until the group has committed the end of every partition.
func (c *realCluster) awaitCommitted(ctx context.Context, t *testing.T, group, topic string) {
	t.Helper()
	ends, err := c.ends(ctx, topic)
	if err != nil {
		t.Fatalf("ends of %s: %v", topic, err)
	}
	var sum int64
	for _, end := range ends {
		sum += end
	}
	if sum != realMessages {
		t.Fatalf("%d messages in %s, want the %d published", sum, topic, realMessages)
	}
	poll(ctx, t, fmt.Sprintf("committed offsets %v", ends), func() (bool, string) {
		partitions := make([]int, realPartitions)
		for p := range partitions {
			partitions[p] = p
		}
		resp, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
		if err != nil {
			return false, err.Error()
		}
		committed := make(map[int]int64)
		for _, p := range resp.Topics[topic] {
			committed[p.Partition] = p.CommittedOffset
		}
		return maps.Equal(committed, ends), fmt.Sprint(committed)
	})
}

// awaitGroup waits until the group is as ok wants it.
func (c *realCluster) awaitGroup(ctx context.Context, t *testing.T, group, want string, ok func(state string, members int) bool) {
	t.Helper()
	poll(ctx, t, want, func() (bool, string) {
		resp, err := c.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
		if err != nil {
			return false, err.Error()
		}
		g := resp.Groups[0]
		return ok(g.GroupState, len(g.Members)), fmt.Sprintf("%s with %d members", g.GroupState, len(g.Members))
	})
}

// poll asks until ok, and fails the test with the last answer when ctx ends.
func poll(ctx context.Context, t *testing.T, want string, ask func() (ok bool, got string)) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, got := ask()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited for %s, last seen: %s", want, got)
		}
	}
}
