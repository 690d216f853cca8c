package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/twmb/franz-go/pkg/kgo"
)

func TestMain(m *testing.M) { transporttest.Main(m) }

// start runs a relay between the topics orders, orders.once and orders.dead,
// and returns a function that drains it.
func start(t *testing.T, from, to *brokertest.Kafka, change func(*Config)) (stop func() Summary) {
	t.Helper()
	_, stop = startRelay(t, from, to, change)
	return stop
}

func startRelay(t *testing.T, from, to *brokertest.Kafka, change func(*Config)) (r *Relay, stop func() Summary) {
	t.Helper()
	key, err := ParseKey("header:Idempotency-Key,json:order.id")
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Store: StoreURL{Kind: "bolt", Dir: t.TempDir()}, Key: key, VouchFrom: time.Unix(0, 0)}
	if from != nil {
		c.From = Endpoint{Kind: Kafka, Hosts: from.Addrs(), Topic: "orders", Group: "g"}
		c.To = Endpoint{Kind: Kafka, Hosts: to.Addrs(), Topic: "{topic}.once"}
		c.DeadLetter = Endpoint{Kind: Kafka, Hosts: to.Addrs(), Topic: "orders.dead"}
	}
	if change != nil {
		change(&c)
	}
	r, err = Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	stop = func() Summary {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, r.Close()); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
		return r.Summary()
	}
	t.Cleanup(func() { stop() })
	return r, stop
}

// eventually waits until condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited two minutes for %s", what)
		}
	}
}

func read(t *testing.T, k *brokertest.Kafka, topic string) []*kgo.Record {
	t.Helper()
	records, err := k.ReadTopic(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

var topics = map[string]int32{"orders": 3, "orders.once": 3, "orders.dead": 1}

func TestRelay(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	stamp := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	order := func(key, value string, more ...kgo.RecordHeader) *kgo.Record {
		r := &kgo.Record{Topic: "orders", Key: []byte("customer"), Value: []byte(value), Timestamp: stamp, Headers: more}
		if key != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: "Idempotency-Key", Value: []byte(key)})
		}
		return r
	}
	trace := kgo.RecordHeader{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}
	huge := order("too large", strings.Repeat("x", 900_000))
	if err := k.Produce(t.Context(), false,
		order("a", "1", trace, kgo.RecordHeader{Key: "x", Value: []byte("1")}, kgo.RecordHeader{Key: "x"}, kgo.RecordHeader{Key: "dedup-ambiguous", Value: []byte("true")}),
		order("a", "1"),
		order("", `{"order":{"id":17}}`),
		order("", `{"order":{"id":17}}`),
		order("", `{"no":"key"}`, trace),
		order("a", "another payload"),
		huge,
		order("b", "2"),
	); err != nil {
		t.Fatal(err)
	}
	stop := start(t, k, k, nil)
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != 4 || got.Duplicates != 2 || got.Parked != 2 || got.Ambiguous != 0 {
		t.Errorf("got %v", got)
	}
	out := read(t, k, "orders.once")
	if len(out) != 4 {
		t.Fatalf("got %d messages, want 4", len(out))
	}
	first := out[0]
	if string(first.Value) != "1" || string(first.Key) != "customer" || !first.Timestamp.Equal(stamp) {
		t.Errorf("got %q, key %q, time %v", first.Value, first.Key, first.Timestamp)
	}
	var names []string
	for _, h := range first.Headers {
		names = append(names, h.Key)
	}
	if got, want := fmt.Sprint(names), "[traceparent x x Idempotency-Key Dedup-Id Dedup-Source]"; got != want {
		t.Errorf("got headers %v, want %v", got, want)
	}
	if id := header(first, "Dedup-Id"); id != dedup.NewID("g > kafka:{topic}.once", "a").String() {
		t.Errorf("got Dedup-Id %q", id)
	}
	if src := header(first, "Dedup-Source"); !strings.HasPrefix(src, "orders/") || !strings.HasSuffix(src, "@0") {
		t.Errorf("got Dedup-Source %q", src)
	}
	dead := read(t, k, "orders.dead")
	if len(dead) != 2 || string(dead[0].Value) != `{"no":"key"}` || string(dead[1].Value) != "another payload" {
		t.Fatalf("got %d dead letters", len(dead))
	}
	for _, r := range []*kgo.Record{first, dead[0]} {
		if got := header(r, trace.Key); got != string(trace.Value) {
			t.Errorf("got traceparent %q, want %q", got, trace.Value)
		}
	}
	if attempts, source := header(dead[0], "Dedup-Attempts"), header(dead[0], "Dedup-Source"); attempts != "0" || !strings.HasPrefix(source, "orders/") {
		t.Errorf("got Dedup-Attempts %q, Dedup-Source %q", attempts, source)
	}
	if why := header(dead[0], "Dedup-Error"); !strings.Contains(why, "no idempotency key") {
		t.Errorf("got Dedup-Error %q", why)
	}
	if why := header(dead[1], "Dedup-Error"); !strings.Contains(why, "another payload") {
		t.Errorf("got Dedup-Error %q", why)
	}
}

func TestTargetStopsAndComesBack(t *testing.T) {
	from := brokertest.NewKafka(t, map[string]int32{"orders": 3}, nil)
	to := brokertest.NewKafka(t, map[string]int32{"orders.once": 3, "orders.dead": 1}, &brokertest.KafkaOptions{Durable: true})
	var log syncBuffer
	stop := start(t, from, to, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	produce := func(first, n int) {
		var records []*kgo.Record
		for i := range n {
			key := fmt.Appendf(nil, "%d", first+i)
			records = append(records, &kgo.Record{Topic: "orders", Value: key, Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: key}}})
		}
		if err := from.Produce(t.Context(), false, records...); err != nil {
			t.Fatal(err)
		}
	}
	produce(0, 1000)
	eventually(t, "the first messages", func() bool { return from.AllCommitted("g", "orders") })
	to.Stop()
	produce(1000, 1000)
	eventually(t, "the relay to notice", func() bool { return strings.Contains(log.String(), "does not take messages") })
	if err := to.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rest", func() bool { return from.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != 2000 || got.Parked != 0 {
		t.Errorf("got %v", got)
	}
	seen := map[string]int{}
	for _, r := range read(t, to, "orders.once") {
		if header(r, "Dedup-Ambiguous") == "" {
			seen[string(r.Value)]++
		} else if seen[string(r.Value)] == 0 {
			seen[string(r.Value)] = 1
		}
	}
	for i := range 2000 {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("message %d came %d times unflagged", i, n)
		}
	}
	if got := strings.Count(log.String(), "answers again"); got != 1 || strings.Count(log.String(), "does not take messages") != 1 {
		t.Errorf("want one line for each change of state, got:\n%s", log.String())
	}
}

// pump is a source that delivers its messages until they are settled.
type pump struct{ ms []*dedup.Message }

func (pump) Close() error                  { return nil }
func (pump) Check(context.Context) error   { return nil }
func (pump) metrics() prometheus.Collector { return nil }
func (pump) redelivery() time.Duration     { return 0 }

func (pump) Status() sourceStatus { return sourceStatus{Assigned: 1} }

func (p pump) RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error {
	left := p.ms
	for len(left) > 0 {
		var again []*dedup.Message
		var wait time.Duration
		for i, r := range d.DoBatch(ctx, left, h) {
			if !r.Settled() {
				again, wait = append(again, left[i]), max(wait, r.RetryAfter)
			}
		}
		left = again
		time.Sleep(wait)
	}
	return nil
}

// fakeSink answers as its script says.
type fakeSink struct {
	publish func(m *dedup.Message) error
	taken   map[string]int
	calls   int
}

func (*fakeSink) Check(context.Context) error { return nil }
func (*fakeSink) Close() error                { return nil }
func (s *fakeSink) Publish(_ context.Context, ms []*dedup.Message) []error {
	s.calls++
	errs := make([]error, len(ms))
	for i, m := range ms {
		if errs[i] = s.publish(m); errs[i] == nil {
			s.taken[string(m.Value)]++
		}
	}
	return errs
}

// A target that is down for a minute, and one that swallows its answers, park
// and lose nothing; what it refuses for good is parked once.
func TestTargetThatFails(t *testing.T) {
	down := errors.New("connection refused")
	refusesOne := func(_ time.Duration, m *dedup.Message) error {
		if string(m.Value) == "7" {
			return dedup.Permanent(errors.New("message too large"))
		}
		return nil
	}
	for name, c := range map[string]struct {
		publish func(since time.Duration, m *dedup.Message) error
		parked  int64
		letters func(since time.Duration) error // nil: they are taken
	}{
		"down for a minute": {func(since time.Duration, _ *dedup.Message) error {
			if since < time.Minute {
				return dedup.Transient(down)
			}
			return nil
		}, 0, nil},
		"unknown outcome for a minute": {func(since time.Duration, m *dedup.Message) error {
			if since < time.Minute {
				return dedup.MaybeDone(down)
			}
			if !bytes.Equal(headerOf(m, HeaderAmbiguous), []byte("true")) {
				t.Error("published again without the flag")
			}
			return nil
		}, 0, nil},
		"refuses one": {refusesOne, 1, nil},
		"refuses one while the dead letters are refused": {refusesOne, 1, func(since time.Duration) error {
			if since < time.Minute {
				return down
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				target := &fakeSink{taken: map[string]int{}, publish: func(m *dedup.Message) error { return c.publish(time.Since(begin), m) }}
				letters := &fakeSink{taken: map[string]int{}, publish: func(*dedup.Message) error {
					if c.letters == nil {
						return nil
					}
					return c.letters(time.Since(begin))
				}}
				var p pump
				for i := range 100 {
					m := &dedup.Message{Topic: "orders", Value: fmt.Append(nil, i), Position: dedup.Position{Source: "orders", Offset: int64(i)}, Published: begin}
					m.Headers.SetKey(dedup.Key(fmt.Sprint(i)))
					p.ms = append(p.ms, m)
				}
				r := &Relay{
					config: Config{To: Endpoint{Topic: "out"}, DeadLetter: Endpoint{Topic: "dead"}},
					source: p, sink: target, letters: letters, started: begin,
					output: health{what: "the target", logger: slog.New(slog.DiscardHandler)},
					grave:  health{what: "the dead letters", logger: slog.New(slog.DiscardHandler)},
				}
				var err error
				r.dedup, err = dedup.New(memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)}), "s", dedup.HeaderKey(),
					&dedup.Options{DeadLetter: r.bury, Hooks: dedup.Hooks{Decided: r.decided}})
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := r.Summary(); got.Parked != c.parked || got.Relayed != 100-c.parked || len(letters.taken) != int(c.parked) {
					t.Errorf("got %v, %d dead letters", got, len(letters.taken))
				}
				for i := range 100 {
					if n := target.taken[fmt.Sprint(i)] + letters.taken[fmt.Sprint(i)]; n != 1 {
						t.Errorf("message %d was taken %d times", i, n)
					}
				}
				if target.calls > 200 {
					t.Errorf("got %d calls in a minute: it does not wait", target.calls)
				}
			})
		})
	}
}

// TestReplayOfAParkedMessage: a message that comes under a parked key is neither
// published nor put into the dead letters. It is counted apart and told, with what to
// do; after that it is published.
func TestReplayOfAParkedMessage(t *testing.T) {
	refuses := true
	target := &fakeSink{taken: map[string]int{}, publish: func(*dedup.Message) error {
		if refuses {
			return dedup.Permanent(errors.New("no such topic"))
		}
		return nil
	}}
	letters := &fakeSink{taken: map[string]int{}, publish: func(*dedup.Message) error { return nil }}
	var log bytes.Buffer
	r := &Relay{
		config: Config{To: Endpoint{Topic: "out"}, DeadLetter: Endpoint{Topic: "dead"}},
		sink:   target, letters: letters, started: time.Now(),
		output: health{what: "the target", logger: slog.New(slog.DiscardHandler)},
		grave:  health{what: "the dead letters", logger: slog.New(slog.DiscardHandler)},
	}
	var err error
	r.dedup, err = dedup.New(memstore.New(nil), "s", dedup.HeaderKey(),
		&dedup.Options{DeadLetter: r.bury, Hooks: dedup.Hooks{Decided: r.decided}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.dedup.Shutdown(t.Context()) }()
	offset := int64(0)
	again := func() dedup.Outcome {
		offset++
		m := &dedup.Message{Topic: "orders", Value: []byte("v"), Position: dedup.Position{Source: "orders", Offset: offset}}
		m.Headers.SetKey("k")
		return r.dedup.DoBatch(t.Context(), []*dedup.Message{m}, r.publish)[0].Outcome
	}
	if got := again(); got != dedup.Parked {
		t.Fatalf("refused for good: got %v, want parked", got)
	}
	refuses = false
	if got := again(); got != dedup.AlreadyParked {
		t.Errorf("published again: got %v, want already_parked", got)
	}
	if !strings.Contains(log.String(), "release the key") {
		t.Errorf("the log says %q, want a line with the remedy", log.String())
	}
	if got := r.Summary(); got.Parked != 1 || got.AlreadyParked != 1 || !strings.Contains(got.String(), "parked=1 already_parked=1") {
		t.Errorf("got %v, want one parked and one already parked", got)
	}
	if err := r.dedup.Release(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if got := again(); got != dedup.Processed || target.taken["v"] != 1 || letters.taken["v"] != 1 {
		t.Errorf("after the release: got %v, published %d times, %d dead letters, want processed, 1 and 1", got, target.taken["v"], letters.taken["v"])
	}
}

// A new store knows nothing of what is older than it: the target is told so, of that
// and of nothing else.
func TestMessagesOlderThanTheStoreAreMarked(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	stop := start(t, k, k, func(c *Config) { c.VouchFrom = time.Time{} })
	for value, published := range map[string]time.Time{"old": time.Now().Add(-time.Hour), "new": time.Now().Add(time.Minute)} {
		if err := k.Produce(t.Context(), false, &kgo.Record{
			Topic: "orders", Value: []byte(value), Timestamp: published, Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: []byte(value)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != 2 || got.Stale != 1 {
		t.Errorf("got %v, want 2 relayed, 1 stale", got)
	}
	for _, r := range read(t, k, "orders.once") {
		if got, want := header(r, HeaderStale), map[string]string{"old": "true"}[string(r.Value)]; got != want {
			t.Errorf("%s: got %s %q, want %q", r.Value, HeaderStale, got, want)
		}
		if got := header(r, HeaderAmbiguous); got != "" {
			t.Errorf("%s: got %s %q, want none", r.Value, HeaderAmbiguous, got)
		}
	}
}

// lostStore fails for good.
type lostStore struct{ *memstore.Store }

func (lostStore) Apply(context.Context, []driver.Op) ([]driver.Reply, error) {
	return nil, dedup.Permanent(errors.New("no space left on device"))
}

// idle is a source that has one message, and waits.
type idle struct{ pump }

func (s idle) RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error {
	d.DoBatch(ctx, s.ms, h)
	<-ctx.Done()
	return nil
}

func TestStoreThatFailedForGoodEndsTheRelay(t *testing.T) {
	m := &dedup.Message{Topic: "orders", Value: []byte("1")}
	m.Headers.SetKey("1")
	r := &Relay{config: Config{Store: StoreURL{Kind: "bolt", Dir: "/d"}}, source: idle{pump{[]*dedup.Message{m}}}}
	var err error
	r.dedup, err = dedup.New(lostStore{memstore.New(nil)}, "s", dedup.HeaderKey(), &dedup.Options{Hooks: dedup.Hooks{Decided: r.decided}})
	if err != nil {
		t.Fatal(err)
	}
	err = r.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "bolt:/d") || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got err %v", err)
	}
}

func headerOf(m *dedup.Message, name string) []byte {
	v, _ := m.Headers.Get(name)
	return v
}

func TestLine(t *testing.T) {
	if got := line("a\r\nb\x1b[31mc\x00\xff"); got != "a  b [31mc ?" {
		t.Errorf("got %q", got)
	}
	if got := line(strings.Repeat("é", 1000)); len(got) != 1024 {
		t.Errorf("got %d bytes", len(got))
	}
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
