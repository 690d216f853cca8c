//go:build real

package natstransport

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

const (
	realMessages   = 10_000
	realDuplicates = realMessages / 5
	realUnique     = realMessages - realDuplicates
)

// TestRealCrash publishes with Sink and consumes with two members, of which one
// leaves in the middle, while 20 % of the messages are duplicates. Then the server
// is killed and started again while the other's handlers run and Sink publishes:
// every message is handled once, and everything is acknowledged.
func TestRealCrash(t *testing.T) {
	for name, consume := range map[string]func(context.Context, *Consumer, *dedup.Deduplicator, dedup.Handler) error{
		"Run": func(ctx context.Context, c *Consumer, d *dedup.Deduplicator, h dedup.Handler) error {
			return c.Run(ctx, d, h)
		},
		"RunBatch": func(ctx context.Context, c *Consumer, d *dedup.Deduplicator, h dedup.Handler) error {
			return c.RunBatch(ctx, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
				answers := make([]dedup.Answer, len(ms))
				for i, m := range ms {
					answers[i].Result, answers[i].Err = h(ctx, m)
				}
				return answers
			})
		},
	} {
		t.Run(name, func(t *testing.T) { testCrash(t, consume) })
	}
}

func testCrash(t *testing.T, consume func(context.Context, *Consumer, *dedup.Deduplicator, dedup.Handler) error) {
	s := newRealServer(t)
	sink, err := NewSink(s.connect(t), s.stream+".new", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	store := memstore.New(&memstore.Options{VouchFrom: time.Now().Add(-time.Hour)}) // so that nothing is Stale
	j := newJournal()
	// The handlers stand still from there on, so that the crash finds them running.
	gate, release := realUnique*6/10, make(chan struct{})
	handle := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if j.seen() >= gate {
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return j.handle(ctx, m)
	}
	member := func(opts ...nats.Option) *run {
		c, err := NewConsumer(s.connect(t, opts...), s.stream, "c", &Config{Logger: testLogger(t)})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(deadline(t)); err != nil {
			t.Fatal(err)
		}
		d := newDeduplicatorOver(t, store, nil)
		return start(t, func(ctx context.Context) error { return consume(ctx, c, d, handle) })
	}

	all := realOrders()
	first := member()
	lost := make(chan struct{})
	second := member(nats.DisconnectErrHandler(func() func(*nats.Conn, error) {
		once := sync.OnceFunc(func() { close(lost) })
		return func(*nats.Conn, error) { once() }
	}()))
	if _, err := publishAll(t.Context(), sink, all[:realMessages/2]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "some handled", func() bool { return j.seen() > realUnique/4 })
	if err := first.Stop(); err != nil {
		t.Errorf("first member: %v", err)
	}

	published := make(chan error, 1)
	go func() {
		again, err := publishAll(t.Context(), sink, all[realMessages/2:])
		t.Logf("%d messages were not confirmed and published again", again)
		published <- err
	}()
	eventually(t, "the handlers at the gate", func() bool { return j.seen() >= gate })
	if len(s.crash) == 0 {
		t.Log("NATS_CRASH is not set: the server is not killed")
	} else {
		crashed := make(chan error, 1)
		go func() {
			out, err := exec.Command(s.crash[0], s.crash[1:]...).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("NATS_CRASH: %w: %s", err, out)
			}
			crashed <- err
		}()
		select {
		case <-lost: // handlers finish while there is nobody to acknowledge to
		case <-time.After(2 * time.Minute):
			t.Error("the second member did not lose its connection within 2m")
		}
		defer func() {
			if err := <-crashed; err != nil {
				t.Error(err)
			}
		}()
	}
	close(release)
	if err := <-published; err != nil {
		t.Fatal(err)
	}
	s.acknowledged(t)
	if err := second.Stop(); err != nil {
		t.Errorf("second member: %v", err)
	}
	j.check(t, realUnique)
	if len(j.flagged) > 0 {
		t.Errorf("%d runs were Ambiguous, want none: no member died", len(j.flagged))
	}
}

func memberWaits(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) { c.AckWait = memberAckWait }

func TestRealProcessKilledInItsHandlers(t *testing.T) {
	s := newRealServer(t, memberWaits)
	testKilled(t, s.js, s.url, s.stream, 5000)
}

func TestRealProcessStoppedInItsHandler(t *testing.T) {
	s := newRealServer(t, memberWaits)
	testStopped(t, s.js, s.url, s.stream)
}

func TestRealMemberCutOff(t *testing.T) {
	s := newRealServer(t, memberWaits)
	testCutOff(t, s.js, func(opts ...nats.Option) jetstream.JetStream { return s.connect(t, opts...) }, s.stream, 30*time.Second)
}

func TestRealClusterLeaderKilled(t *testing.T) {
	s := realAddress(t)
	testLeaderKilled(t, func() jetstream.JetStream { return s.connect(t) }, s.stream, 3000, func(leader string) func() {
		s.kill(t, leader)
		return func() {} // it is back already
	})
}

// kill kills the server, or that node of it, and starts it again.
func (s *realServer) kill(t *testing.T, node ...string) {
	t.Helper()
	if len(s.crash) == 0 {
		t.Log("NATS_CRASH is not set: the server is not killed")
		return
	}
	crash := append(slices.Clone(s.crash), node...)
	if out, err := exec.Command(crash[0], crash[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("NATS_CRASH: %v: %s", err, out)
	}
}

// An order is kept while connections break and the server is killed.
func TestRealOrder(t *testing.T) {
	s := newRealServer(t, func(_ *jetstream.StreamConfig, c *jetstream.ConsumerConfig) { c.AckWait = time.Second })
	line := &cable{}
	mine := s.connect(t, nats.SetCustomDialer(line))
	testManyBroken(t, s.js, mine, &Config{Logger: testLogger(t), OrderBy: OrderByToken(2)}, s.stream, 10, 5000, func(round int) {
		if round%3 == 2 {
			s.kill(t)
			return
		}
		line.set(true)
		line.set(false)
	})
}

// The same with the server killed that leads the consumer, to which the member's
// connection may or may not be.
func TestRealClusterOrder(t *testing.T) {
	s := newRealServer(t, func(stream *jetstream.StreamConfig, c *jetstream.ConsumerConfig) {
		stream.Replicas, c.AckWait = 3, 2*time.Second
	})
	testManyBroken(t, s.js, s.connect(t), &Config{Logger: testLogger(t), OrderBy: OrderByToken(2)}, s.stream, 4, 5000, func(int) {
		s.kill(t, infoOf(t, s.js, s.stream).Cluster.Leader)
	})
}

func TestRealBacklog(t *testing.T) {
	s := newRealServer(t, func(stream *jetstream.StreamConfig, c *jetstream.ConsumerConfig) {
		stream.PersistMode = jetstream.AsyncPersistMode // else most of the test is the wait for the disk to take the backlog
		c.AckWait = 2 * time.Second
	})
	testBacklogKilled(t, s.js, s.url, s.stream, 200_000)
}

// realOrders returns the messages to publish: one in five is a copy of an earlier
// one, as often near as far away.
func realOrders() []*dedup.Message {
	random := mathrand.New(mathrand.NewPCG(1, 2))
	var unique, all []*dedup.Message
	for len(all) < realMessages {
		left, copies := realMessages-len(all), realDuplicates-(len(all)-len(unique))
		if len(unique) > 0 && random.IntN(left) < copies {
			span := len(unique)
			if random.IntN(2) == 0 {
				span = min(span, 10)
			}
			all = append(all, unique[len(unique)-1-random.IntN(span)])
			continue
		}
		id := fmt.Sprintf("order-%d", len(unique))
		m := &dedup.Message{Value: []byte(id)}
		m.Headers.SetKey(dedup.Key(id))
		unique, all = append(unique, m), append(all, m)
	}
	return all
}

// realServer is the server that the environment names, with a stream of its own
// that has the consumer c.
type realServer struct {
	url    string
	crash  []string // kills the server and starts it again; empty: it stays
	stream string   // and the prefix of its subjects
	js     jetstream.JetStream
}

func newRealServer(t *testing.T, change ...func(*jetstream.StreamConfig, *jetstream.ConsumerConfig)) *realServer {
	t.Helper()
	s := realAddress(t)
	s.js = s.connect(t)
	stream := jetstream.StreamConfig{Name: s.stream, Subjects: []string{s.stream + ".>"}, Storage: jetstream.FileStorage}
	consumer := jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxDeliver: -1}
	for _, f := range change {
		f(&stream, &consumer)
	}
	eventually(t, "the stream created", func() bool { // a request that comes before there is a leader is never answered
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.js.CreateStream(ctx, stream)
		return err == nil
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := s.js.DeleteStream(ctx, s.stream); err != nil {
			t.Errorf("delete stream %s: %v", s.stream, err)
		}
	})
	eventually(t, "the consumer created", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := s.js.CreateConsumer(ctx, s.stream, consumer)
		return err == nil
	})
	return s
}

// realAddress is a realServer without its stream.
func realAddress(t *testing.T) *realServer {
	t.Helper()
	s := &realServer{url: os.Getenv("NATS_URL"), crash: strings.Fields(os.Getenv("NATS_CRASH")), stream: "orders-" + rand.Text()}
	if s.url == "" {
		const missing = "NATS_URL is not set: run make test-real, or set it to nats://HOST:PORT of your own"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	return s
}

func (s *realServer) connect(t *testing.T, opts ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(s.url, append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// acknowledged waits until every message of the stream is acknowledged.
func (s *realServer) acknowledged(t *testing.T) {
	t.Helper()
	ctx := deadline(t)
	var state string
	defer func() {
		if t.Failed() {
			t.Log(state)
		}
	}()
	eventually(t, "everything acknowledged", func() bool {
		stream, err := s.js.Stream(ctx, s.stream)
		if err != nil {
			state = err.Error()
			return false
		}
		c, err := stream.Consumer(ctx, "c")
		if err != nil {
			state = err.Error()
			return false
		}
		messages, i := stream.CachedInfo().State, c.CachedInfo()
		state = fmt.Sprintf("the stream has %d messages to %d; %d to be delivered, %d to be acknowledged, all acknowledged to %d",
			messages.Msgs, messages.LastSeq, i.NumPending, i.NumAckPending, i.AckFloor.Stream)
		return messages.Msgs >= realMessages && i.NumPending == 0 && i.NumAckPending == 0 && i.AckFloor.Stream == messages.LastSeq
	})
}
