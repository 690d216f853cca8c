package natstransport

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// cable is a nats.CustomDialer whose connections can be cut, and stay so.
type cable struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (c *cable) Dial(network, address string) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, errors.New("the cable is cut")
	}
	conn, err := net.Dial(network, address)
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	if cut {
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.conns = nil
	}
}

// One of two members is cut off from the server for longer than AckWait, while its
// handlers run and its leases are renewed: the server gives its messages to the
// other, who finds the keys held.
func TestMemberCutOff(t *testing.T) {
	const ackWait = 500 * time.Millisecond
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = ackWait })
	testCutOff(t, js, func(opts ...nats.Option) jetstream.JetStream { return connect(t, n, opts...) }, "S", 4*ackWait)
}

func testCutOff(t *testing.T, js jetstream.JetStream, connect func(...nats.Option) jetstream.JetStream, stream string, outage time.Duration) {
	const messages = 60
	store := memstore.New(nil)
	j := newJournal()
	var ofOther outcomes
	line, began, release := &cable{}, make(chan struct{}, messages), make(chan struct{})
	member := func(js jetstream.JetStream, hooks dedup.Hooks, h dedup.Handler) (*Consumer, *run) {
		o := quick(t)
		o.Prefetch = 20
		c, err := NewConsumer(js, stream, "c", o)
		if err != nil {
			t.Fatal(err)
		}
		d := newDeduplicatorOver(t, store, &dedup.Options{Concurrency: 32, Hooks: hooks})
		return c, start(t, func(ctx context.Context) error { return c.Run(ctx, d, h) })
	}
	_, victim := member(connect(nats.SetCustomDialer(line)), dedup.Hooks{}, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		began <- struct{}{}
		<-release
		return j.handle(ctx, m)
	})
	publishTo(t, js, stream, 0, messages/2)
	for range 10 {
		<-began
	}
	line.set(true)
	over := time.After(outage)
	_, other := member(connect(), ofOther.hooks(), j.handle)
	publishTo(t, js, stream, messages/2, messages/2)
	eventually(t, "the other to meet keys that are held", func() bool { return ofOther.count(dedup.Busy) > 0 })
	<-over
	close(release) // the victim has nobody to acknowledge to
	eventually(t, "the other to hear that they are done", func() bool { return ofOther.count(dedup.Duplicate) >= 10 })
	line.set(false)
	answeredIn(t, js, stream)
	for _, r := range []*run{victim, other} {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	j.check(t, messages)
}

func TestLeaderKilled(t *testing.T) {
	cluster, err := brokertest.StartNATSCluster(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	connect := func() jetstream.JetStream {
		js, err := cluster.Connect()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(js.Conn().Close)
		return js
	}
	testLeaderKilled(t, connect, "S", 300, func(leader string) (restart func()) {
		server, err := cluster.Server(leader)
		if err != nil {
			t.Fatal(err)
		}
		server.Stop()
		return func() {
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The leader of the consumer and of its stream is killed, in a cluster of three, while
// handlers run and messages are published.
func testLeaderKilled(t *testing.T, connect func() jetstream.JetStream, stream string, messages int, kill func(leader string) (restart func())) {
	js := connect()
	soon := func() context.Context { // a request that comes before there is a leader is never answered
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	eventually(t, "the stream created", func() bool {
		_, err := js.CreateStream(soon(), jetstream.StreamConfig{Name: stream, Subjects: []string{stream + ".>"}, Replicas: 3})
		return err == nil
	})
	eventually(t, "the consumer created", func() bool {
		_, err := js.CreateConsumer(soon(), stream, jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second, MaxDeliver: -1})
		return err == nil
	})
	sink, err := NewSink(js, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	d := newDeduplicator(t, &dedup.Options{Concurrency: 8})
	c, err := NewConsumer(connect(), stream, "c", quick(t))
	if err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	gate, release := messages/3, make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if j.seen() >= gate {
				<-release
			}
			return j.handle(ctx, m)
		})
	})
	for range 2 { // twice each: half of them are duplicates
		if _, err := publishAll(t.Context(), sink, orders(stream, 0, messages)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the handlers at the gate", func() bool { return j.seen() >= gate })
	restart := kill(infoOf(t, js, stream).Cluster.Leader)
	close(release)
	if _, err := publishAll(t.Context(), sink, orders(stream, messages, messages)); err != nil { // while a new one is chosen
		t.Fatal(err)
	}
	eventually(t, "all handled", func() bool { return j.seen() == 2*messages })
	restart()
	eventually(t, "everything acknowledged", func() bool {
		c, err := js.Consumer(soon(), stream, "c")
		return err == nil && c.CachedInfo().NumPending == 0 && c.CachedInfo().NumAckPending == 0
	})
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 2*messages)
	if len(j.flagged) > 0 {
		t.Errorf("%d runs were Ambiguous, want none: no member died", len(j.flagged))
	}
}
