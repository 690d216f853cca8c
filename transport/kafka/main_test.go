package kafkatransport

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestMain(m *testing.M) { transporttest.Main(m) }

// quick is a Config whose intervals suit tests. The session is long enough for a
// machine that stops a test for a while.
func quick(t *testing.T) *Config {
	return &Config{
		SessionTimeout:    15 * time.Second,
		HeartbeatInterval: 100 * time.Millisecond,
		RebalanceTimeout:  15 * time.Second,
		CommitInterval:    20 * time.Millisecond,
		MaxWait:           50 * time.Millisecond,
		Logger:            testLogger(t),
		watchInterval:     100 * time.Millisecond,
		metadataTTL:       time.Second,
	}
}

func newConsumer(t *testing.T, k interface{ Addrs() []string }, group string, c *Config, topics ...string) *Consumer {
	t.Helper()
	consumer, err := NewConsumer(k.Addrs(), group, topics, c)
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}

var (
	newDeduplicatorOver = transporttest.NewDeduplicator
	start               = transporttest.Start
	eventually          = transporttest.Eventually
	testLogger          = transporttest.Logger
)

type run = transporttest.Run

// newDeduplicator has a store in memory.
func newDeduplicator(t *testing.T, o *dedup.Options) *dedup.Deduplicator {
	t.Helper()
	return newDeduplicatorOver(t, memstore.New(nil), o)
}

// numbered makes n records with the keys "k0" to "k<keys-1>" in turn, each with
// an idempotency key of its own, and its number as the value.
func numbered(topic string, from, n, keys int) []*kgo.Record {
	records := make([]*kgo.Record, n)
	for i := range records {
		id := fmt.Sprint(from + i)
		records[i] = &kgo.Record{
			Topic:   topic,
			Key:     fmt.Appendf(nil, "k%d", (from+i)%keys),
			Value:   []byte(id),
			Headers: []kgo.RecordHeader{{Key: dedup.HeaderIdempotencyKey, Value: []byte(id)}},
		}
	}
	return records
}

func produce(t *testing.T, k *brokertest.Kafka, records ...*kgo.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := k.Produce(ctx, false, records...); err != nil {
		t.Fatal(err)
	}
}

// complete says whether the group has committed the ends of the topic.
func complete(k *brokertest.Kafka, group, topic string) bool { return k.AllCommitted(group, topic) }

// journal notes what a handler saw.
type journal struct {
	mu      sync.Mutex
	runs    map[string]int      // by value: handlers that succeeded
	byKey   map[string][]string // values in the order of their runs
	running map[string]bool     // keys whose handler runs
	overlap int                 // how often a handler began while another ran for its key
}

func newJournal() *journal {
	return &journal{runs: map[string]int{}, byKey: map[string][]string{}, running: map[string]bool{}}
}

func (j *journal) begin(m *dedup.Message) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := string(m.Key)
	if key != "" && j.running[key] {
		j.overlap++
	}
	j.running[key] = true
}

func (j *journal) end(m *dedup.Message, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	key := string(m.Key)
	j.running[key] = false
	if ok {
		j.runs[string(m.Value)]++
		j.byKey[key] = append(j.byKey[key], string(m.Value))
	}
}

func (j *journal) handle(_ context.Context, m *dedup.Message) ([]byte, error) {
	j.begin(m)
	j.end(m, true)
	return nil, nil
}

func (j *journal) seen() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.runs)
}

// check wants each of n messages once, those of one key in order.
func (j *journal) check(t *testing.T, n int) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.runs) != n {
		t.Errorf("got %d messages handled, want %d", len(j.runs), n)
	}
	for value, times := range j.runs {
		if times != 1 {
			t.Errorf("message %s: got %d runs, want 1", value, times)
		}
	}
	if j.overlap > 0 {
		t.Errorf("got %d handlers begun while another ran for the same key, want 0", j.overlap)
	}
	for key, values := range j.byKey {
		last := -1
		for _, v := range values {
			var n int
			if _, err := fmt.Sscan(v, &n); err != nil {
				t.Fatalf("value %q: %v", v, err)
			}
			if n <= last {
				t.Errorf("key %s: got %d after %d", key, n, last)
			}
			last = n
		}
	}
}
