package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// Two members of one group, each a process of its own, share a store that lives
// in this one. One of them is killed while it runs handlers.
func TestProcessKilledInItsHandlers(t *testing.T) {
	const (
		messages = 4000 // and every fifth again
		keys     = 200
	)
	k := brokertest.NewKafka(t, map[string]int32{"t": 12}, nil)
	hub := startHub(t)
	var records []*kgo.Record
	for i, r := range numbered("t", 0, messages, keys) {
		records = append(records, r)
		if i%5 == 0 {
			again := *r
			again.Headers = r.Headers
			records = append(records, &again)
		}
	}
	produce(t, k, records...)

	victim, survivor := startMember(t, hub, k.Addrs(), "t", "victim", quick(t)), startMember(t, hub, k.Addrs(), "t", "survivor", quick(t))
	eventually(t, "both members to run handlers", func() bool { return hub.running("victim") > 0 && hub.running("survivor") > 0 })
	eventually(t, "a quarter to be done", func() bool { return hub.done() > messages/4 })
	eventually(t, "the victim to run a handler", func() bool { return hub.running("victim") > 0 })
	victim.kill()
	eventually(t, "the rest to be committed", func() bool { return complete(k, "g-t", "t") })
	survivor.stop()

	ambiguous := hub.check(t, messages)
	if ambiguous == 0 {
		t.Error("got no Ambiguous run: the kill hit no handler")
	}
	t.Logf("%d runs were Ambiguous", ambiguous)
}

// hub is what the processes share: the store, and the journal of effects.
type hub struct {
	store *memstore.Store
	addr  string

	mu      sync.Mutex
	began   map[string]map[string]bool // by process: the messages in its handlers
	effects []Effect
}

// Effect is what a handler did.
type Effect struct {
	Process, Key, Value string
	Claim               dedup.Claim
}

// Applied carries the replies of a store.
type Applied struct{ Replies []dedup.Reply }

func startHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{store: memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)}), began: map[string]map[string]bool{}}
	server := rpc.NewServer()
	if err := server.RegisterName("Hub", &hubService{h}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { server.ServeConn(conn) }) // until its process ends
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return h
}

func (h *hub) running(process string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.began[process])
}

func (h *hub) done() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.effects)
}

// check wants every message recorded, a repeated effect only in a run that was
// told, and the effects of each key in order. It returns how many were told.
func (h *hub) check(t *testing.T, messages int) (ambiguous int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	times, last := map[string]int{}, map[string]int{}
	for _, e := range h.effects {
		times[e.Value]++
		if e.Claim.Ambiguous {
			ambiguous++
		} else if times[e.Value] > 1 {
			t.Errorf("message %s: its effect was repeated without the flag, by the %s", e.Value, e.Process)
		}
		var n int
		if _, err := fmt.Sscan(e.Value, &n); err != nil {
			t.Fatal(err)
		}
		if n < last[e.Key] {
			t.Errorf("key %s: got %d after %d", e.Key, n, last[e.Key])
		}
		last[e.Key] = n
	}
	if len(times) != messages {
		t.Errorf("got the effects of %d messages, want %d", len(times), messages)
	}
	recorded := 0
	for r, err := range h.store.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.State != dedup.StateDone {
			t.Errorf("%v: got state %v, want done", r.ID, r.State)
		}
		recorded++
	}
	if recorded != messages {
		t.Errorf("got %d records, want %d", recorded, messages)
	}
	return ambiguous
}

// hubService is what the members call.
type hubService struct{ h *hub }

// Apply is dedup.Store's.
func (s *hubService) Apply(ops []dedup.Op, out *Applied) (err error) {
	out.Replies, err = s.h.store.Apply(context.Background(), ops)
	return err
}

// Vouch is dedup.Store's.
func (s *hubService) Vouch(_ struct{}, out *dedup.Vouch) (err error) {
	*out, err = s.h.store.Vouch(context.Background())
	return err
}

// Begin notes that a handler runs.
func (s *hubService) Begin(e Effect, _ *struct{}) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	if s.h.began[e.Process] == nil {
		s.h.began[e.Process] = map[string]bool{}
	}
	s.h.began[e.Process][e.Value] = true
	return nil
}

// Effect notes that it had its effect.
func (s *hubService) Effect(e Effect, _ *struct{}) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	delete(s.h.began[e.Process], e.Value)
	s.h.effects = append(s.h.effects, e)
	return nil
}

// member is a process of the group.
type member struct {
	t   *testing.T
	cmd *exec.Cmd
	out *strings.Builder
}

const memberEnv = "ONCEQUEUE_TEST_MEMBER" // "name hub-address broker-addresses topic session-in-ms"

func startMember(t *testing.T, h *hub, brokers []string, topic, name string, c *Config) *member {
	t.Helper()
	m := &member{t: t, out: &strings.Builder{}}
	m.cmd = exec.Command(os.Args[0], "-test.run=^TestMember$", "-test.v", "-test.count=1")
	m.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %s %s %d", memberEnv, name, h.addr, strings.Join(brokers, ","), topic, c.SessionTimeout.Milliseconds()))
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
	return m
}

func (m *member) kill() {
	if m.cmd.ProcessState == nil {
		_ = m.cmd.Process.Kill()
		_ = m.cmd.Wait()
	}
}

func (m *member) stop() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Error(err)
	}
	if err := m.cmd.Wait(); err != nil {
		m.t.Errorf("the member failed: %v\n%s", err, m.out)
	}
}

// remoteStore is the hub's store, seen from a member.
type remoteStore struct{ *rpc.Client }

func (r remoteStore) Apply(_ context.Context, ops []dedup.Op) ([]dedup.Reply, error) {
	var out Applied
	err := r.Call("Hub.Apply", ops, &out)
	return out.Replies, err
}

func (r remoteStore) Vouch(context.Context) (v dedup.Vouch, err error) {
	err = r.Call("Hub.Vouch", struct{}{}, &v)
	return v, err
}

// TestMember is not a test but the body of a member's process.
func TestMember(t *testing.T) {
	var name, hubAddr, brokers, topic string
	var session time.Duration
	if n, _ := fmt.Sscan(os.Getenv(memberEnv), &name, &hubAddr, &brokers, &topic, &session); n != 5 {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	client, err := rpc.Dial("tcp", hubAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	d := newDeduplicatorOver(t, remoteStore{client}, &dedup.Options{Lease: 2 * time.Second})
	config := quick(t)
	config.SessionTimeout = session * time.Millisecond
	consumer, err := NewConsumer(strings.Split(brokers, ","), "g-"+topic, []string{topic}, config)
	if err != nil {
		t.Fatal(err)
	}
	err = consumer.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		e := Effect{Process: name, Key: string(m.Key), Value: string(m.Value), Claim: m.Claim}
		begun := client.Call("Hub.Begin", e, new(struct{}))
		<-time.After(2 * time.Millisecond) // work
		return nil, errors.Join(begun, client.Call("Hub.Effect", e, new(struct{})))
	})
	if err != nil {
		t.Error(err)
	}
}
