package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/hangtest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(hangtest.M(m)) }

// bench is a Deduplicator over a store in memory, with its metrics.
type bench struct {
	*dedup.Deduplicator
	t     *testing.T
	reg   *prometheus.Registry
	scope string
}

func newBench(t *testing.T, reg *prometheus.Registry, scope string, store driver.Store, next dedup.Hooks) *bench {
	t.Helper()
	hangtest.Watch(t)
	m, err := New(reg, scope, &Options{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dedup.New(store, scope, dedup.HeaderKey(), &dedup.Options{TTL: time.Hour, Hooks: m.Hooks(next)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return &bench{d, t, reg, scope}
}

func newStore() *memstore.Store {
	return memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)})
}

// do delivers a message with the key, at the position.
func (b *bench) do(key, source string, offset int64, h dedup.Handler) dedup.Result {
	m := &dedup.Message{Position: dedup.Position{Source: source, Offset: offset}, Published: time.Now()}
	if key != "" {
		m.Headers.SetKey(dedup.Key(key))
	}
	return b.Do(context.Background(), m, h)
}

func ok(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }

// metric returns the metric that has the scope and the label values.
func (b *bench) metric(name string, more ...string) *dto.Metric {
	b.t.Helper()
	all, err := b.reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	want := append([]string{b.scope}, more...)
	for _, family := range all {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			slices.Sort(values)
			slices.Sort(want)
			if slices.Equal(values, want) {
				return m
			}
		}
	}
	b.t.Fatalf("no metric %s of %q", name, want)
	return nil
}

func (b *bench) want(want float64, name string, more ...string) {
	b.t.Helper()
	m := b.metric(name, more...)
	got := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	if got != want {
		b.t.Errorf("%s%v: got %v, want %v", name, more, got, want)
	}
}

func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, prometheus.NewRegistry(), "orders", newStore(), dedup.Hooks{})
		b.do("a", "orders", 1, func(context.Context, *dedup.Message) ([]byte, error) { time.Sleep(3 * time.Second); return nil, nil })
		time.Sleep(time.Minute)
		b.do("a", "orders", 1, ok) // the broker again
		b.do("a", "orders", 2, ok) // the producer again
		b.do("a", "orders", 3, ok)
		b.do("a", "archive", 1, ok)
		b.do("", "orders", 4, ok)
		b.do("b", "orders", 5, func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.MaybeDone(errors.New("timeout"))
		})
		b.do("b", "orders", 5, ok) // flagged ambiguous

		b.want(2, "dedup_messages_total", "processed")
		b.want(4, "dedup_messages_total", "duplicate")
		b.want(1, "dedup_messages_total", "unkeyed")
		b.want(1, "dedup_messages_total", "failed")
		b.want(0, "dedup_messages_total", "uncertain")
		b.want(1, "dedup_duplicates_total", "redelivery")
		b.want(2, "dedup_duplicates_total", "republish")
		b.want(1, "dedup_duplicates_total", "other_source")
		b.want(1, "dedup_ambiguous_total")
		b.want(0, "dedup_stale_total")
		b.want(3, "dedup_handler_seconds")
		b.want(4, "dedup_duplicate_age_seconds")
		b.want(0, "dedup_store_errors_total")
		b.want(0, "dedup_in_flight")
		if got := b.metric("dedup_handler_seconds").GetHistogram().GetSampleSum(); got < 3 || got > 3.1 {
			t.Errorf("handlers: got %v seconds, want 3", got)
		}
		if got := b.metric("dedup_duplicate_age_seconds").GetHistogram().GetSampleSum(); got != 4*63 {
			t.Errorf("ages: got %v seconds, want 4 x 63", got)
		}
		if got := b.metric("dedup_store_batch_ops").GetHistogram(); got.GetSampleCount() == 0 || got.GetSampleSum() != float64(got.GetSampleCount()) {
			t.Errorf("batches: got %v, want one operation each", got)
		}
	})
}

// A run that is ambiguous again and again is one message; stale counts the same.
func TestFlagsCountMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New(&memstore.Options{VouchFrom: time.Now().Add(time.Hour)})
		b := newBench(t, prometheus.NewRegistry(), "orders", store, dedup.Hooks{})
		for range 5 {
			b.do("a", "orders", 1, func(context.Context, *dedup.Message) ([]byte, error) {
				return nil, dedup.MaybeDone(errors.New("timeout"))
			})
		}
		b.want(0, "dedup_ambiguous_total")
		b.do("a", "orders", 1, ok)
		b.want(1, "dedup_ambiguous_total")
		b.want(1, "dedup_stale_total")
	})
}

func TestInFlightAndHeadroom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, prometheus.NewRegistry(), "orders", newStore(), dedup.Hooks{})
		b.want(3600, "dedup_window_headroom_seconds")
		release := make(chan struct{})
		hold := func(context.Context, *dedup.Message) ([]byte, error) { <-release; return nil, nil }
		go b.do("a", "orders", 1, hold)
		time.Sleep(10 * time.Second)
		go b.do("b", "orders", 2, hold)
		time.Sleep(5 * time.Second)
		b.want(2, "dedup_in_flight")
		b.want(3600-15, "dedup_window_headroom_seconds")
		close(release)
		synctest.Wait()
		b.want(0, "dedup_in_flight")
		b.want(3600, "dedup_window_headroom_seconds")
	})
}

// Between two deliveries a message is not in flight, and not finished either.
func TestHeadroomOfMessagesThatWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, prometheus.NewRegistry(), "orders", newStore(), dedup.Hooks{})
		m := &dedup.Message{Position: dedup.Position{Source: "orders", Offset: 1}}
		m.Headers.SetKey("a")
		fail := func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.RetryAfter(errors.New("down"), time.Minute)
		}
		for range 3 { // without a timestamp its age counts from the first delivery
			b.Do(t.Context(), m, fail)
			time.Sleep(time.Minute)
		}
		b.want(0, "dedup_in_flight")
		b.want(3600-180, "dedup_window_headroom_seconds")
		b.Do(t.Context(), m, ok)
		b.want(3600, "dedup_window_headroom_seconds")

		b.do("b", "orders", 2, fail) // and never again: another consumer has it
		time.Sleep(time.Minute + linger)
		b.want(3600-360, "dedup_window_headroom_seconds")
		time.Sleep(time.Second)
		b.want(3600, "dedup_window_headroom_seconds")
	})
}

// The same *Message may be under way twice. The number of waiting messages is bounded.
func TestUnfinished(t *testing.T) {
	var u unfinished
	u.init()
	now := time.Now()
	m := &dedup.Message{Published: now.Add(-time.Minute)}
	u.start(m, now)
	u.start(m, now)
	u.end(m)
	if n, oldest := u.look(now); n != 1 || !oldest.Equal(m.Published) {
		t.Errorf("got %d since %v, want 1 since %v", n, oldest, m.Published)
	}
	u.end(m)
	u.end(m) // begun before the hooks were in place
	if n, oldest := u.look(now); n != 0 || !oldest.IsZero() || len(u.flying) != 0 {
		t.Errorf("got %d since %v, want none", n, oldest)
	}
	for i := range maxWaiting + 10 {
		m := &dedup.Message{Published: now.Add(time.Duration(i)), Position: dedup.Position{Offset: int64(i)}}
		u.start(m, now)
		u.wait(m, 0)
	}
	if _, oldest := u.look(now); len(u.waiting) != maxWaiting || !oldest.Equal(now) {
		t.Errorf("got %d waiting, the oldest since %v, want %d since %v", len(u.waiting), oldest, maxWaiting, now)
	}
	u.look(now.Add(linger + time.Hour))
	if len(u.waiting) != 0 {
		t.Errorf("got %d waiting long after they were due", len(u.waiting))
	}
}

// Deliveries under a parked key are counted apart from parked messages, and apart
// from duplicates.
func TestAlreadyParked(t *testing.T) {
	b := newBench(t, prometheus.NewRegistry(), "orders", newStore(), dedup.Hooks{})
	b.want(0, "dedup_messages_total", "already_parked")
	m, err := New(b.reg, "orders", &Options{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b.Deduplicator, err = dedup.New(newStore(), "orders", dedup.HeaderKey(), &dedup.Options{
		TTL: time.Hour, Hooks: m.Hooks(dedup.Hooks{}), DeadLetter: func(context.Context, *dedup.Message, error) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Shutdown(context.Background()) }()
	for offset := range int64(3) {
		b.do("a", "orders", offset+1, func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.Permanent(errors.New("poison"))
		})
	}
	b.want(1, "dedup_messages_total", "parked")
	b.want(2, "dedup_messages_total", "already_parked")
	b.want(0, "dedup_messages_total", "duplicate")
}

// failing is a store that does not answer.
type failing struct{ *memstore.Store }

func (failing) Apply(context.Context, []driver.Op) ([]driver.Reply, error) {
	return nil, errors.New("connection refused")
}

func (failing) Stats(context.Context) (driver.Stats, error) {
	return driver.Stats{}, errors.New("connection refused")
}

// limited is a store with a quota, on servers that were replaced.
type limited struct{ *memstore.Store }

func (limited) Stats(context.Context) (driver.Stats, error) {
	return driver.Stats{Bytes: 1, Limit: 2, Changes: 3}, nil
}

func TestStore(t *testing.T) {
	reg := prometheus.NewRegistry()
	up := newBench(t, reg, "up", newStore(), dedup.Hooks{})
	store := newStore()
	if err := errors.Join(RegisterStore(reg, "up", store), RegisterStore(reg, "down", failing{store})); err != nil {
		t.Fatal(err)
	}
	up.want(1, "dedup_store_up")
	up.want(0, "dedup_store_records")
	up.want(0, "dedup_store_vouched_timestamp_seconds")
	down := newBench(t, reg, "down", failing{store}, dedup.Hooks{})
	down.want(0, "dedup_store_up")
	if n, err := testutil.GatherAndCount(reg, "dedup_store_records", "dedup_store_bytes"); n != 2 || err != nil {
		t.Errorf("got %d figures of stores, %v; want only the two of the one that is up", n, err)
	}
	down.do("a", "orders", 1, ok)
	down.want(1, "dedup_messages_total", "unavailable")
	if down.metric("dedup_store_errors_total").GetCounter().GetValue() == 0 {
		t.Error("got no store error")
	}
	if err := RegisterStore(reg, "up", store); err == nil {
		t.Error("a scope took two stores")
	}
	if err := RegisterStore(reg, "limited", limited{store}); err != nil {
		t.Fatal(err)
	}
	newBench(t, reg, "limited", store, dedup.Hooks{}).want(3, "dedup_store_changes_total")
	if n, err := testutil.GatherAndCount(reg, "dedup_store_limit_bytes"); n != 1 || err != nil {
		t.Errorf("got %d limits of stores, %v; want one, of the store that has one", n, err)
	}
}

// A handler that hangs is counted until it returns.
func TestHungHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewRegistry()
		m, err := New(reg, "orders", &Options{TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var hooked atomic.Int64
		d, err := dedup.New(newStore(), "orders", dedup.HeaderKey(), &dedup.Options{
			TTL: time.Hour, Lease: time.Second, HandlerTimeout: time.Second, Hooks: m.Hooks(dedup.Hooks{Hung: func(change int) { hooked.Add(int64(change)) }}),
		})
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{d, t, reg, "orders"}
		ended := make(chan dedup.Result)
		go func() {
			ended <- b.do("k", "orders", 1, func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(time.Minute)
				return nil, nil
			})
		}()
		for after, hung := range []float64{0, 1, 0} {
			b.want(hung, "dedup_handlers_hung")
			if hooked.Load() != int64(hung) {
				t.Errorf("step %d: the next hook got %d in all, want %v", after, hooked.Load(), hung)
			}
			time.Sleep([]time.Duration{10 * time.Second, time.Minute, 0}[after])
			if after == 1 {
				<-ended
			}
		}
		if err := d.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestHooksAreComposed(t *testing.T) {
	var calls []string
	note := func(name string) func(dedup.Event) { return func(dedup.Event) { calls = append(calls, name) } }
	m, err := New(prometheus.NewRegistry(), "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := m.Hooks(dedup.Hooks{
		Started: note("started"), Decided: note("decided"), LeaseLost: note("lost"),
		Applied: func(int, time.Duration, error) { calls = append(calls, "applied") },
	})
	e := dedup.Event{Message: &dedup.Message{}}
	for _, h := range []dedup.Hooks{h, m.Hooks(dedup.Hooks{})} {
		h.Started(e)
		h.Applied(1, time.Second, nil)
		h.LeaseLost(e)
		h.Decided(e)
	}
	if got, want := fmt.Sprint(calls), "[started applied lost decided]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTwoScopesOnOneRegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	store := newStore()
	orders, billing := newBench(t, reg, "orders", store, dedup.Hooks{}), newBench(t, reg, "billing", store, dedup.Hooks{})
	again := newBench(t, reg, "orders", store, dedup.Hooks{}) // a second consumer of the scope
	orders.do("a", "orders", 1, ok)
	again.do("a", "orders", 1, ok)
	billing.do("a", "orders", 1, ok)
	orders.want(1, "dedup_messages_total", "processed")
	orders.want(1, "dedup_messages_total", "duplicate")
	billing.want(1, "dedup_messages_total", "processed")
	billing.want(0, "dedup_messages_total", "duplicate")

	// The same behind a Registerer that adds a label.
	wrapped := prometheus.WrapRegistererWith(prometheus.Labels{"route": "r1"}, prometheus.NewRegistry())
	first, err := New(wrapped, "orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := New(wrapped, "orders", nil); err != nil || second.scope != first.scope {
		t.Errorf("got other metrics for the same scope, %v", err)
	}
}

func TestRefused(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := New(reg, "orders", nil); err != nil {
		t.Fatal(err)
	}
	taken := prometheus.NewRegistry()
	taken.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "dedup_stale_total", Help: "Somebody else's."}))
	for name, f := range map[string]func() error{
		"no registry":       func() error { _, err := New(nil, "orders", nil); return err },
		"no scope":          func() error { _, err := New(reg, "", nil); return err },
		"negative TTL":      func() error { _, err := New(reg, "x", &Options{TTL: -1}); return err },
		"another TTL":       func() error { _, err := New(reg, "orders", &Options{TTL: time.Hour}); return err },
		"no label":          func() error { _, err := New(reg, "\xff", nil); return err },
		"name taken":        func() error { _, err := New(taken, "orders", nil); return err },
		"store no registry": func() error { return RegisterStore(nil, "orders", newStore()) },
		"store no scope":    func() error { return RegisterStore(reg, "", newStore()) },
		"no store":          func() error { return RegisterStore(reg, "orders", nil) },
		"store no label":    func() error { return RegisterStore(reg, "\xff", newStore()) },
	} {
		err := f()
		if err == nil || !strings.HasPrefix(err.Error(), "metrics: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want an error in one line", name, err)
		}
	}
	if _, err := New(reg, "orders", &Options{TTL: 24 * time.Hour}); err != nil {
		t.Errorf("the default TTL is not 24h: %v", err)
	}
}

// A scrape passes the linter, has the scope on every series, has native and classic histograms,
// and has the metrics of the table in the package comment.
func TestScrape(t *testing.T) {
	reg := prometheus.NewRegistry()
	store := newStore()
	for _, scope := range []string{"orders", "billing > kafka:invoices"} {
		b := newBench(t, reg, scope, store, dedup.Hooks{})
		if err := RegisterStore(reg, scope, store); err != nil {
			t.Fatal(err)
		}
		b.do("secret-key", "secret-topic", 1, ok)
		b.do("secret-key", "secret-topic", 1, ok)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if n := l.GetName(); n != "scope" && n != "outcome" && n != "cause" {
					t.Errorf("%s has the label %s", f.GetName(), n)
				}
			}
			if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "scope" }) {
				t.Errorf("%s has no scope", f.GetName())
			}
			if h := m.GetHistogram(); h != nil && (len(h.GetBucket()) == 0 || h.Schema == nil) {
				t.Errorf("%s is not native and classic at once", f.GetName())
			}
		}
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile(`(?m)^//\t(dedup_\w+) +(?:counter|gauge|histogram) `).FindAllStringSubmatch(string(doc), -1) {
		documented = append(documented, row[1])
	}
	slices.Sort(documented)
	documented = slices.DeleteFunc(documented, func(s string) bool {
		return s == "dedup_store_oldest_timestamp_seconds" || s == "dedup_store_limit_bytes" // a store in memory has none
	})
	if !slices.Equal(documented, names) {
		t.Errorf("the package comment has\n%v, the registry\n%v", documented, names)
	}

	server := httptest.NewServer(promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	defer server.Close()
	res, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("got %s, %v", res.Status, err)
	}
	if last := fmt.Sprintf(`dedup_store_batch_ops_bucket{scope="orders",le="%d"} `, driver.MaxBatch); !strings.Contains(string(text), last) {
		t.Errorf("the scrape has no %s: a full batch is in no bucket", last)
	}
	for _, want := range []string{
		`dedup_messages_total{outcome="processed",scope="orders"} 1`,
		`dedup_duplicates_total{cause="redelivery",scope="billing > kafka:invoices"} 1`,
		`dedup_handler_seconds_bucket{scope="orders",le="+Inf"} 1`,
		`dedup_window_headroom_seconds{scope="orders"} 3600`,
	} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("the scrape has no line %s", want)
		}
	}
	if strings.Contains(string(text), "secret") {
		t.Error("a key or a topic shows in the scrape")
	}
}

func BenchmarkHooks(b *testing.B) {
	m, err := New(prometheus.NewRegistry(), "orders", nil)
	if err != nil {
		b.Fatal(err)
	}
	h := m.Hooks(dedup.Hooks{})
	e := dedup.Event{Message: &dedup.Message{Published: time.Now()}, Result: dedup.Result{Outcome: dedup.Processed}, Took: time.Millisecond, Started: time.Now()}
	b.ReportAllocs()
	for b.Loop() {
		h.Started(e)
		h.Decided(e)
	}
}
