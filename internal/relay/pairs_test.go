package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// place is a topic or stream of either kind, with clients that are not ours.
type place interface {
	endpoint() Endpoint
	publish(t *testing.T, key, value string)
	read(t *testing.T) []received
	finished() bool // all that was published is acknowledged
}

type received struct {
	key, value string
	headers    map[string]string
}

type kafkaPlace struct {
	k     *brokertest.Kafka
	topic string
}

func (p kafkaPlace) endpoint() Endpoint {
	return Endpoint{Kind: Kafka, Hosts: p.k.Addrs(), Topic: p.topic, Group: "g"}
}

func (p kafkaPlace) publish(t *testing.T, key, value string) {
	t.Helper()
	r := &kgo.Record{Topic: p.topic, Key: []byte("partitioned"), Value: []byte(value)}
	if key != "" {
		r.Headers = []kgo.RecordHeader{{Key: "Idempotency-Key", Value: []byte(key)}}
	}
	if err := p.k.Produce(t.Context(), false, r); err != nil {
		t.Fatal(err)
	}
}

func (p kafkaPlace) read(t *testing.T) (out []received) {
	for _, r := range read(t, p.k, p.topic) {
		m := received{key: string(r.Key), value: string(r.Value), headers: map[string]string{}}
		for _, h := range r.Headers {
			m.headers[h.Key] = string(h.Value)
		}
		out = append(out, m)
	}
	return out
}

func (p kafkaPlace) finished() bool { return p.k.AllCommitted("g", p.topic) }

type natsPlace struct {
	n       *brokertest.NATS
	js      jetstream.JetStream
	subject string
}

func (p natsPlace) endpoint() Endpoint {
	return Endpoint{Kind: NATS, Hosts: []string{strings.TrimPrefix(p.n.URL(), "nats://")}, Topic: p.subject, Consumer: "c"}
}

func (p natsPlace) publish(t *testing.T, key, value string) {
	t.Helper()
	m := nats.NewMsg(p.subject)
	m.Data = []byte(value)
	if key != "" {
		m.Header.Set("Idempotency-Key", key)
	}
	m.Header.Set("Nats-Msg-Id", fmt.Sprint(time.Now().UnixNano())) // the stream must not do our work
	m.Header.Set(headerKey, "partitioned")
	if _, err := p.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

func (p natsPlace) read(t *testing.T) (out []received) {
	t.Helper()
	stream, err := p.js.Stream(t.Context(), streamOf(p.subject))
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); ; seq++ {
		m, err := stream.GetMsg(t.Context(), seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		r := received{key: m.Header.Get(headerKey), value: string(m.Data), headers: map[string]string{}}
		for name, values := range m.Header {
			r.headers[name] = values[0]
		}
		out = append(out, r)
	}
}

func (p natsPlace) finished() bool {
	c, err := p.js.Consumer(context.Background(), streamOf(p.subject), "c")
	if err != nil {
		return false
	}
	info := c.CachedInfo()
	return info.NumPending == 0 && info.NumAckPending == 0
}

func streamOf(subject string) string { return strings.ReplaceAll(subject, ".", "-") }

// places returns orders, orders.once and orders.dead of a kind.
func places(t *testing.T, kind Kind) [3]place {
	t.Helper()
	names := [3]string{"orders", "orders.once", "orders.dead"}
	var out [3]place
	if kind == Kafka {
		k := brokertest.NewKafka(t, topics, nil)
		for i, name := range names {
			out[i] = kafkaPlace{k, name}
		}
		return out
	}
	n := brokertest.NewNATS(t, nil)
	js, err := n.Connect(nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(js.Conn().Close)
	for i, name := range names {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: streamOf(name), Subjects: []string{name}}); err != nil {
			t.Fatal(err)
		}
		out[i] = natsPlace{n, js, name}
	}
	if _, err := js.CreateConsumer(t.Context(), "orders", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPairs(t *testing.T) {
	for _, from := range []Kind{Kafka, NATS} {
		for _, to := range []Kind{Kafka, NATS} {
			t.Run(string(from)+" to "+string(to), func(t *testing.T) {
				source := places(t, from)
				target := source
				if to != from {
					target = places(t, to)
				}
				stop := start(t, nil, nil, func(c *Config) {
					c.From, c.To, c.DeadLetter = source[0].endpoint(), target[1].endpoint(), target[2].endpoint()
					c.Key = dedup.HeaderKey()
				})
				for i := range 50 {
					source[0].publish(t, fmt.Sprint(i%40), fmt.Sprint(i%40))
				}
				source[0].publish(t, "", "no key")
				source[0].publish(t, "7", "another payload")
				eventually(t, "all to be acknowledged", source[0].finished)
				if got := stop(); got.Relayed != 40 || got.Parked != 2 || got.Duplicates < 10 {
					t.Errorf("got %v", got)
				}
				out := target[1].read(t)
				seen := map[string]int{}
				for _, m := range out {
					seen[m.value]++
					if m.key != "partitioned" || m.headers["Idempotency-Key"] != m.value || m.headers[HeaderID] == "" || !strings.HasPrefix(m.headers[dedup.HeaderSource], "orders/") {
						t.Errorf("got key %q, headers %v", m.key, m.headers)
					}
				}
				for i := range 40 {
					if seen[fmt.Sprint(i)] != 1 {
						t.Errorf("message %d came %d times", i, seen[fmt.Sprint(i)])
					}
				}
				dead := target[2].read(t)
				if len(dead) != 2 {
					t.Fatalf("got %d dead letters", len(dead))
				}
				for _, m := range dead {
					if m.headers[dedup.HeaderError] == "" {
						t.Errorf("got headers %v", m.headers)
					}
				}
			})
		}
	}
}

func TestNATSThatCannotWork(t *testing.T) {
	p := places(t, NATS)
	good := p[0].endpoint()
	for name, c := range map[string]struct {
		change func(*Config)
		says   []string
	}{
		"no server":                {func(c *Config) { c.From.Hosts = []string{"127.0.0.1:1"} }, []string{"127.0.0.1:1", "refused", "check the address"}},
		"no stream":                {func(c *Config) { c.From.Topic = "nothing" }, []string{"no stream has the subject nothing", "&stream=NAME"}},
		"no consumer":              {func(c *Config) { c.From.Consumer = "nobody" }, []string{"nobody", "nats consumer add"}},
		"another subject":          {func(c *Config) { c.From.Topic, c.From.Stream = "orders.eu", "orders" }, []string{"delivers orders and not orders.eu"}},
		"no stream for the target": {func(c *Config) { c.To.Topic = "nowhere" }, []string{"nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{From: good, To: p[1].endpoint(), Store: StoreURL{Kind: "mem"}, Key: dedup.HeaderKey()}
			c.change(&config)
			_, err := Open(t.Context(), config)
			if err == nil {
				t.Fatal("want an error")
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, want it to name %q", err, part)
				}
			}
		})
	}
}

func TestReadyFollowsTheNATSServer(t *testing.T) {
	p := places(t, NATS)
	n := p[0].(natsPlace).n
	r, stop := startRelay(t, nil, nil, func(c *Config) {
		c.From, c.To, c.DeadLetter = p[0].endpoint(), p[1].endpoint(), p[2].endpoint()
		c.Listen = "127.0.0.1:0"
	})
	const rounds, each = 2, 300
	for i := range rounds {
		eventually(t, "the relay to be ready", func() bool { return getReady(t, r).Ready })
		for j := range each {
			key := fmt.Sprint(i*each + j)
			p[0].publish(t, key, key)
		}
		n.Stop()
		eventually(t, "the relay not to be ready", func() bool {
			got := getReady(t, r)
			return !got.Ready && !got.Checks["source"].OK && !got.Checks["target"].OK && got.Checks["store"].OK
		})
		if code, body := get(t, r, "/livez"); code != 200 {
			t.Errorf("/livez: got %d %s: a restart would not help", code, body)
		}
		if err := n.Restart(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the relay to be ready again", func() bool { return getReady(t, r).Ready })
	eventually(t, "all to be acknowledged", p[0].finished)
	if got := stop(); got.Relayed != rounds*each || got.Parked != 0 {
		t.Errorf("got %v", got)
	}
	seen := map[string]int{}
	for _, m := range p[1].read(t) {
		seen[m.value]++
	}
	for i := range rounds * each {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("message %d came %d times", i, n)
		}
	}
}

// A source with a wildcard sends each message where its own subject says.
func TestWildcardSubject(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js, err := n.Connect(nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(js.Conn().Close)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateConsumer(t.Context(), "orders", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	k := brokertest.NewKafka(t, map[string]int32{"once.orders.eu": 1, "once.orders.us": 1}, nil)
	stop := start(t, nil, nil, func(c *Config) {
		c.From = natsPlace{n, js, "orders.>"}.endpoint()
		c.To = Endpoint{Kind: Kafka, Hosts: k.Addrs(), Topic: "once.{subject}"}
	})
	for _, subject := range []string{"orders.eu", "orders.us", "orders.eu"} {
		natsPlace{n, js, subject}.publish(t, subject, subject)
	}
	eventually(t, "all to be acknowledged", func() bool {
		c, err := js.Consumer(context.Background(), "orders", "c")
		return err == nil && c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == 0
	})
	if got := stop(); got.Relayed != 2 || got.Duplicates != 1 {
		t.Errorf("got %v", got)
	}
	for _, subject := range []string{"orders.eu", "orders.us"} {
		if out := read(t, k, "once."+subject); len(out) != 1 || string(out[0].Value) != subject {
			t.Errorf("%s: got %d messages", subject, len(out))
		}
	}
}

// A message whose relay died comes again after the AckWait of its source: the target has
// to know its id until then.
func TestDuplicateWindowIsComparedWithAckWait(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js, err := n.Connect(nats.MaxReconnects(-1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(js.Conn().Close)
	for _, name := range []string{"orders", "once"} {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: name, Subjects: []string{name}, Duplicates: 5 * time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	for ackWait, warned := range map[time.Duration]bool{time.Minute: false, 2 * time.Minute: true} {
		if _, err := js.CreateOrUpdateConsumer(t.Context(), "orders", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait}); err != nil {
			t.Fatal(err)
		}
		var log syncBuffer
		stop := start(t, nil, nil, func(c *Config) {
			c.From, c.To = natsPlace{n, js, "orders"}.endpoint(), natsPlace{n, js, "once"}.endpoint()
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		stop()
		if got := strings.Contains(log.String(), "window of the stream is short"); got != warned {
			t.Errorf("AckWait %v, window 5m: warned %v, want %v: %s", ackWait, got, warned, log.String())
		}
	}
}
