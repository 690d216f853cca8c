package natstransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestMain(m *testing.M) { transporttest.Main(m) }

// quick is a Config whose intervals suit tests.
func quick(t *testing.T) *Config {
	return &Config{
		Workers:    16,
		Logger:     testLogger(t),
		heartbeat:  200 * time.Millisecond,
		expires:    5 * time.Second,
		patience:   2 * time.Second,
		maxBackoff: 200 * time.Millisecond,
	}
}

func connect(t *testing.T, n *brokertest.NATS, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	js, err := n.Connect(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(js.Conn().Close)
	return js
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// newStream creates the stream S of the subjects s.>, with the consumer c.
func newStream(t *testing.T, js jetstream.JetStream, change func(*jetstream.ConsumerConfig)) {
	t.Helper()
	const storeFailed jetstream.ErrorCode = 10049 // the files of one of that name, just deleted, are still there
	eventually(t, "the stream created", func() bool {
		_, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.FileStorage})
		var refused *jetstream.APIError
		if err != nil && (!errors.As(err, &refused) || refused.ErrorCode != storeFailed) {
			t.Fatal(err)
		}
		return err == nil
	})
	addConsumer(t, js, change)
}

// patiently is for tests in which nothing may come again because the machine stands
// still.
func patiently(o *jetstream.ConsumerConfig) { o.AckWait = time.Minute }

func addConsumer(t *testing.T, js jetstream.JetStream, change func(*jetstream.ConsumerConfig)) {
	t.Helper()
	o := jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second, MaxDeliver: -1}
	if change != nil {
		change(&o)
	}
	if _, err := js.CreateConsumer(deadline(t), "S", o); err != nil {
		t.Fatal(err)
	}
}

func newConsumer(t *testing.T, js jetstream.JetStream, c *Config) *Consumer {
	t.Helper()
	consumer, err := NewConsumer(js, "S", "c", c)
	if err != nil {
		t.Fatal(err)
	}
	return consumer
}

// publish stores n messages in S with the numbers from first on, each the value and
// the idempotency key.
func publish(t *testing.T, js jetstream.JetStream, first, n int) {
	t.Helper()
	publishAs(t, js, "s", first, n)
}

func publishTo(t *testing.T, js jetstream.JetStream, stream string, first, n int) {
	t.Helper()
	publishAs(t, js, prefixOf(t, js, stream), first, n)
}

// prefixOf returns what the subjects of the stream begin with.
func prefixOf(t *testing.T, js jetstream.JetStream, stream string) string {
	t.Helper()
	s, err := js.Stream(deadline(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(s.CachedInfo().Config.Subjects[0], ".>")
}

func publishAs(t *testing.T, js jetstream.JetStream, prefix string, first, n int) {
	t.Helper()
	ctx := deadline(t)
	for i := range n {
		id := fmt.Sprint(first + i)
		if _, err := js.PublishMsg(ctx, jetstreamMessage(prefix+"."+id, id)); err != nil {
			t.Fatal(err)
		}
	}
}

func info(t *testing.T, js jetstream.JetStream) *jetstream.ConsumerInfo {
	t.Helper()
	return infoOf(t, js, "S")
}

func infoOf(t *testing.T, js jetstream.JetStream, stream string) *jetstream.ConsumerInfo {
	t.Helper()
	c, err := js.Consumer(deadline(t), stream, "c")
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo()
}

// answered polls until the consumer has delivered everything and waits for no
// answer.
func answered(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	answeredIn(t, js, "S")
}

func answeredIn(t *testing.T, js jetstream.JetStream, stream string) {
	t.Helper()
	s, err := js.Stream(deadline(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	last := s.CachedInfo().State.LastSeq // the consumer hears of it a moment later
	eventually(t, "everything delivered and answered", func() bool {
		i := infoOf(t, js, stream)
		return i.NumPending == 0 && i.NumAckPending == 0 && i.AckFloor.Stream >= last
	})
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

// journal notes what a handler saw.
type journal struct {
	mu      sync.Mutex
	runs    map[string]int // by value: handlers that returned
	flagged map[string]bool
}

func newJournal() *journal { return &journal{runs: map[string]int{}, flagged: map[string]bool{}} }

func (j *journal) handle(_ context.Context, m *dedup.Message) ([]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.runs[string(m.Value)]++
	if m.Claim.Ambiguous {
		j.flagged[string(m.Value)] = true
	}
	return nil, nil
}

func (j *journal) handleBatch(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
	for _, m := range ms {
		_, _ = j.handle(ctx, m)
	}
	return make([]dedup.Answer, len(ms))
}

func (j *journal) seen() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.runs)
}

// check wants each of n messages once.
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
}

// countingHandler keeps the lines that were logged.
type countingHandler struct {
	mu       sync.Mutex
	messages []string
}

func (h *countingHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h *countingHandler) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *countingHandler) WithGroup(string) slog.Handler            { return h }

func (h *countingHandler) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.messages = append(h.messages, r.Message)
	return nil
}

// count returns how many lines begin with prefix.
func (h *countingHandler) count(prefix string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.messages {
		if strings.HasPrefix(m, prefix) {
			n++
		}
	}
	return n
}

// outcomes counts what the Deduplicator decided.
type outcomes struct {
	mu sync.Mutex
	n  map[dedup.Outcome]int
}

func (o *outcomes) hooks() dedup.Hooks {
	o.n = map[dedup.Outcome]int{}
	return dedup.Hooks{Decided: func(e dedup.Event) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.n[e.Result.Outcome]++
	}}
}

func (o *outcomes) count(outcome dedup.Outcome) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[outcome]
}

// jetstreamMessage has the value as its idempotency key.
func jetstreamMessage(subject, value string) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: []byte(value), Header: nats.Header{dedup.HeaderIdempotencyKey: {value}}}
}
