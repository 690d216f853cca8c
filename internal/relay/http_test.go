package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// get returns the status code and the body of an endpoint.
func get(t *testing.T, r *Relay, path string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	res, err := client.Get("http://" + r.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func getReady(t *testing.T, r *Relay) report {
	t.Helper()
	code, body := get(t, r, "/readyz")
	var out report
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	if out.Ready != (code == 200) || !out.Ready && code != 503 {
		t.Errorf("got %d with %s", code, body)
	}
	return out
}

func order(i int) *kgo.Record {
	key := fmt.Append(nil, i)
	return &kgo.Record{Topic: "orders", Key: key, Value: key, Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: key}}}
}

func orders(from, n int) (records []*kgo.Record) {
	for i := range n {
		records = append(records, order(from+i))
	}
	return records
}

// The broker dies under the running relay: it says so, loses nothing, and is
// ready again by itself when the broker is back.
func TestReadyFollowsTheBroker(t *testing.T) {
	k := brokertest.NewKafka(t, topics, &brokertest.KafkaOptions{Durable: true})
	r, stop := startRelay(t, k, k, func(c *Config) { c.Listen = "127.0.0.1:0" })
	eventually(t, "the relay to be ready", func() bool { return getReady(t, r).Ready })
	const rounds, each = 2, 1000
	for i := range rounds {
		if err := k.Produce(t.Context(), false, orders(i*each, each)...); err != nil {
			t.Fatal(err)
		}
		eventually(t, "some messages", func() bool { return r.Summary().Relayed > int64(i*each) })
		stopped := time.Now()
		k.Stop()
		eventually(t, "the relay not to be ready", func() bool {
			got := getReady(t, r)
			return !got.Ready && !got.Checks["source"].OK && !got.Checks["target"].OK && got.Checks["store"].OK
		})
		t.Logf("not ready %v after the broker's death", time.Since(stopped).Round(time.Millisecond))
		if code, body := get(t, r, "/livez"); code != 200 {
			t.Errorf("/livez: got %d %s: a restart would not help", code, body)
		}
		if err := k.Restart(); err != nil {
			t.Fatal(err)
		}
		restarted := time.Now()
		eventually(t, "the relay to be ready again", func() bool { return getReady(t, r).Ready })
		t.Logf("ready %v after its return", time.Since(restarted).Round(time.Millisecond))
	}
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != rounds*each || got.Parked != 0 {
		t.Errorf("got %v", got)
	}
	seen, flagged := map[string]int{}, map[string]int{}
	for _, m := range read(t, k, "orders.once") {
		if header(m, HeaderAmbiguous) == "" {
			seen[string(m.Value)]++
		} else {
			flagged[string(m.Value)]++
		}
	}
	for i := range rounds * each {
		if v := fmt.Sprint(i); seen[v] > 1 || seen[v]+flagged[v] == 0 {
			t.Errorf("message %d came %d times unflagged and %d times flagged", i, seen[v], flagged[v])
		}
	}
}

// A broker that hangs refuses nothing: only what does not come tells.
func TestReadyNoticesABrokerThatHangs(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	var hangs atomic.Bool
	k.Cluster().Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		return nil, nil, hangs.Load()
	})
	r, stop := startRelay(t, k, k, func(c *Config) { c.Listen = "127.0.0.1:0" })
	eventually(t, "the relay to be ready", func() bool { return getReady(t, r).Ready })
	hung := time.Now()
	hangs.Store(true)
	eventually(t, "the relay to name source and target", func() bool {
		got := getReady(t, r)
		return !got.Ready && !got.Checks["source"].OK && !got.Checks["target"].OK
	})
	t.Logf("both are named %v after the broker hung", time.Since(hung).Round(time.Millisecond))
	hangs.Store(false)
	eventually(t, "the relay to be ready again", func() bool { return getReady(t, r).Ready })
	if err := k.Produce(t.Context(), false, orders(0, 100)...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != 100 {
		t.Errorf("got %v", got)
	}
}

func TestHaltIsNotReady(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	r, stop := startRelay(t, k, k, func(c *Config) { c.Listen, c.DeadLetter = "127.0.0.1:0", Endpoint{} })
	eventually(t, "the relay to be ready", func() bool { return getReady(t, r).Ready })
	if err := k.Produce(t.Context(), false, &kgo.Record{Topic: "orders", Value: []byte("no key")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a partition to halt", func() bool {
		return strings.Contains(getReady(t, r).Checks["source"].Reason, "1 of 3 partitions halted")
	})
	stop()
}

func TestEndpoints(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	r, _ := startRelay(t, k, k, func(c *Config) {
		c.Listen, c.Version = "127.0.0.1:0", "v1.2.3"
		c.Flags = map[string]string{"from": "kafka://user:hunter2@h:1/t?group=g&password=hunter2", "api-token": "hunter2", "scope": "", "ttl": "24h0m0s"}
	})
	if err := k.Produce(t.Context(), false, order(1), order(1), order(2)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })

	code, body := get(t, r, "/statusz")
	var s status
	if err := json.Unmarshal([]byte(body), &s); err != nil || code != 200 {
		t.Fatalf("/statusz: got %d, %v: %s", code, err, body)
	}
	if strings.Contains(body, "hunter2") {
		t.Errorf("/statusz shows a secret: %s", body)
	}
	if s.Version != "v1.2.3" || s.Phase != "relaying" || s.Tier.Name != "plain" || s.Counts.Relayed != 2 || s.Counts.Duplicates != 1 || s.Source.Assigned != 3 {
		t.Errorf("/statusz: got %s", body)
	}
	if s.Store.ID == "" || s.Store.Since.IsZero() || *s.Store.Records != 2 || *s.Store.Bytes == 0 || runtime.GOOS == "linux" && s.Store.Limit <= *s.Store.Bytes || s.Store.Shared {
		t.Errorf("/statusz: got store %+v", s.Store)
	}
	if s.Flags["scope"] != s.Scope || s.Scope != "g > kafka:{topic}.once" || s.Flags["ttl"] != "24h0m0s" {
		t.Errorf("/statusz: got flags %v, scope %q", s.Flags, s.Scope)
	}

	code, body = get(t, r, "/metrics")
	for _, want := range []string{
		`dedup_messages_total{outcome="processed",scope="g > kafka:{topic}.once"} 2`,
		`dedup_duplicates_total{cause="republish",scope="g > kafka:{topic}.once"} 1`,
		`dedup_store_records{scope="g > kafka:{topic}.once"} 2`,
		`dedup_relay_build_info{scope="g > kafka:{topic}.once",version="v1.2.3"} 1`,
		`dedup_relay_http_write_errors_total{scope="g > kafka:{topic}.once"} 0`,
	} {
		if code != 200 || !strings.Contains(body, want+"\n") {
			t.Errorf("/metrics: got %d, want a line %s", code, want)
		}
	}
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var ours []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "dedup_") {
			ours = append(ours, f.GetName())
		}
	}
	if problems, err := testutil.GatherAndLint(r.registry, ours...); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}

	if code, body := get(t, r, "/livez"); code != 200 || !strings.Contains(body, `"ok": true`) {
		t.Errorf("/livez: got %d %s", code, body)
	}
	if code, _ := get(t, r, "/"); code != 404 {
		t.Errorf("/: got %d, want 404", code)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Post("http://"+r.Addr().String()+"/readyz", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %s", res.Status)
	}
	if h := &r.server.http; h.ReadHeaderTimeout == 0 || h.ReadTimeout == 0 || h.WriteTimeout == 0 || h.IdleTimeout == 0 {
		t.Error("the server waits for ever for a client")
	}
}

// While the relay opens, its endpoints answer already.
func TestEndpointsWhileOpening(t *testing.T) {
	r := &Relay{started: time.Now(), config: Config{Logger: slog.New(slog.DiscardHandler), To: Endpoint{Kind: "kafka"}, Store: StoreURL{Kind: "mem"}}}
	r.registry, r.unwritten = newRegistry("s", "v")
	h := r.handler()
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/statusz": 200, "/metrics": 200} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: got %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}

func TestListenIsFirst(t *testing.T) {
	k := brokertest.NewKafka(t, topics, nil)
	first, _ := startRelay(t, k, k, func(c *Config) { c.Listen = "127.0.0.1:0" })
	dir := filepath.Join(t.TempDir(), "store")
	_, err := Open(t.Context(), Config{
		From:   Endpoint{Kind: Kafka, Hosts: []string{"127.0.0.1:1"}, Topic: "orders", Group: "g"}, // would fail later
		To:     Endpoint{Kind: Kafka, Hosts: []string{"127.0.0.1:1"}, Topic: "orders.once"},
		Store:  StoreURL{Kind: "bolt", Dir: dir},
		Key:    dedup.PayloadHash(),
		Listen: first.Addr().String(),
	})
	want := "--listen " + first.Addr().String() + ": bind: address already in use; choose another address, or none with --listen="
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if entries, _ := filepath.Glob(dir); len(entries) > 0 {
		t.Error("the store was created")
	}
}

func TestCheckListen(t *testing.T) {
	for _, in := range []string{"127.0.0.1:9464", ":9464", "[::1]:0", "localhost:1"} {
		if err := CheckListen(in); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	}
	for _, in := range []string{"9464", "localhost", "h:", "h:x", "h:65536", "::1:80", "http://h:1"} {
		if err := CheckListen(in); err == nil {
			t.Errorf("%q: want an error", in)
		}
	}
}

// replaced is a store on servers of which one was replaced.
type replaced struct{ *memstore.Store }

func (replaced) Stats(context.Context) (driver.Stats, error) {
	return driver.Stats{Durability: "appendfsync=always", Changes: 2}, nil
}

func TestStatusOfServers(t *testing.T) {
	f := newFakes()
	f.records = replaced{memstore.New(nil)}
	if got := f.status(t.Context()).Store; got.Durability != "appendfsync=always" || got.Changes != 2 {
		t.Errorf("got %+v, want the durability of its servers, and 2 changes", got)
	}
}

// deaf is a client that has hung up.
type deaf struct {
	*httptest.ResponseRecorder
	small bool // the loss shows when the buffer is flushed
}

func (d deaf) Write(p []byte) (int, error) {
	if d.small {
		return len(p), nil
	}
	return 0, errors.New("broken pipe")
}

func (d deaf) FlushError() error { return errors.New("broken pipe") }

func TestWriteErrorsAreCounted(t *testing.T) {
	for _, small := range []bool{true, false} {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "x_total"})
		h := counted(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, true, check{OK: true}) }), c)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
		if got := testutil.ToFloat64(c); got != 0 {
			t.Errorf("got %v errors, want 0", got)
		}
		h.ServeHTTP(deaf{httptest.NewRecorder(), small}, httptest.NewRequest("GET", "/", nil))
		if got := testutil.ToFloat64(c); got != 1 {
			t.Errorf("got %v errors, want 1 for one answer", got)
		}
	}
}

func TestRedacted(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"from", "kafka://h:1,g:2/t?group=g&session=6s", "kafka://h:1,g:2/t?group=g&session=6s"},
		{"from", "nats://user:p@ss@h:1/s?consumer=c", "nats://REDACTED@h:1/s?consumer=c"},
		{"from", "nats://user:p/w?x@h:1/s", "nats://REDACTED@h:1/s"},
		{"from", "nats://a:b@h:1,nats://c:d@g:2/s", "nats://REDACTED@g:2/s"},
		{"from", "nats://token@h:1/s?creds=/home/x&consumer=c", "nats://REDACTED@h:1/s?creds=REDACTED&consumer=c"},
		{"store", "redis://:pw@h:1/0?password=x;TOKEN=y", "redis://REDACTED@h:1/0?password=REDACTED&TOKEN=REDACTED"},
		{"store", "bolt:/var/lib/a@b", "bolt:/var/lib/a@b"},
		{"sasl-password", "hunter2", "REDACTED"},
		{"sasl-password", "", ""},
		{"ttl", "24h0m0s", "24h0m0s"},
	} {
		if got := redacted(c.name, c.value); got != c.want {
			t.Errorf("--%s %s: got %s, want %s", c.name, c.value, got, c.want)
		}
	}
}
