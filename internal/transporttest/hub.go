package transporttest

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// Hub is shared by the processes of a test. It has a store, the journal of their
// effects, and gates that hold their handlers.
type Hub struct {
	Store *memstore.Store
	Addr  string // for DialHub

	mu       sync.Mutex
	running  map[string]int // handlers, by process
	gates    map[string]chan struct{}
	effects  []Effect
	outcomes map[string]int // by process and outcome
}

// Effect is one effect of a handler.
type Effect struct {
	Process, Key, Value string
	Claim               dedup.Claim
}

// StartHub starts a Hub that ends with the test.
func StartHub(t *testing.T) *Hub {
	t.Helper()
	h := &Hub{
		Store:   memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)}),
		running: map[string]int{}, gates: map[string]chan struct{}{}, outcomes: map[string]int{},
	}
	server := rpc.NewServer()
	if err := server.RegisterName("Hub", &hubService{h}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.Addr = l.Addr().String()
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

// Hold makes the handlers of the process wait once they have begun, until the
// returned function is called.
func (h *Hub) Hold(process string) (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	gate := make(chan struct{})
	h.gates[process] = gate
	return sync.OnceFunc(func() { close(gate) })
}

// Running returns how many handlers of the process have begun and had no effect yet.
func (h *Hub) Running(process string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[process]
}

// Done returns how many effects there were.
func (h *Hub) Done() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.effects)
}

// Decided returns how often the process came to the outcome.
func (h *Hub) Decided(process string, o dedup.Outcome) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.outcomes[process+" "+o.String()]
}

// Check wants an effect and a record of each of n messages, and of those with
// several effects all but one flagged. It returns how many were.
func (h *Hub) Check(t *testing.T, n int) (ambiguous int) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	plain := map[string]int{}
	for _, e := range h.effects {
		if e.Claim.Ambiguous {
			ambiguous++
			plain[e.Value] += 0
			continue
		}
		if plain[e.Value]++; plain[e.Value] > 1 {
			t.Errorf("message %s: its effect was repeated without the flag, by the %s", e.Value, e.Process)
		}
	}
	if len(plain) != n {
		t.Errorf("got the effects of %d messages, want %d", len(plain), n)
	}
	recorded := 0
	for r, err := range h.Store.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if r.State != driver.StateDone {
			t.Errorf("%v: got state %v, want done", r.ID, r.State)
		}
		recorded++
	}
	if recorded != n {
		t.Errorf("got %d records, want %d", recorded, n)
	}
	return ambiguous
}

// CheckOrder wants the effects of each message key in the order of their values, which
// are numbers. An effect counts when it is first seen; those of a process that another
// had taken the message from by then do not, as a system that looks at the token
// refuses them.
func (h *Hub) CheckOrder(t *testing.T) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	tokens, last := map[string]driver.Token{}, map[string]int{}
	for _, e := range h.effects {
		if e.Claim.Token < tokens[e.Value] {
			continue
		}
		tokens[e.Value] = e.Claim.Token
		n, err := strconv.Atoi(e.Value)
		if err != nil {
			t.Fatal(err)
		}
		if n < last[e.Key] {
			t.Errorf("key %s: got %d after %d, by the %s", e.Key, n, last[e.Key], e.Process)
		}
		last[e.Key] = n
	}
}

// hubService has the methods that the processes call.
type hubService struct{ h *Hub }

// Applied carries the replies of a store.
type Applied struct{ Replies []driver.Reply }

// Decision is one outcome, as a process reports it.
type Decision struct {
	Process string
	Outcome dedup.Outcome
}

// Apply is driver.Store's.
func (s *hubService) Apply(ops []driver.Op, out *Applied) (err error) {
	out.Replies, err = s.h.Store.Apply(context.Background(), ops)
	return err
}

// Vouch is driver.Store's.
func (s *hubService) Vouch(_ struct{}, out *driver.Vouch) (err error) {
	*out, err = s.h.Store.Vouch(context.Background())
	return err
}

// Begin notes that a handler runs, and holds it at the gate of its process.
func (s *hubService) Begin(e Effect, _ *struct{}) error {
	s.h.mu.Lock()
	s.h.running[e.Process]++
	gate := s.h.gates[e.Process]
	s.h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return nil
}

// Effect notes that it had its effect.
func (s *hubService) Effect(e Effect, _ *struct{}) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.running[e.Process]--
	s.h.effects = append(s.h.effects, e)
	return nil
}

// Decided notes an outcome.
func (s *hubService) Decided(d Decision, _ *struct{}) error {
	s.h.mu.Lock()
	defer s.h.mu.Unlock()
	s.h.outcomes[d.Process+" "+d.Outcome.String()]++
	return nil
}

// HubClient is the Hub as a process sees it: its store, and a handler.
type HubClient struct {
	client  *rpc.Client
	process string
}

// DialHub connects the process of that name to the Hub at addr.
func DialHub(addr, process string) (*HubClient, error) {
	client, err := rpc.Dial("tcp", addr)
	return &HubClient{client, process}, err
}

// Close closes the connection.
func (c *HubClient) Close() error { return c.client.Close() }

// Apply implements driver.Store.
func (c *HubClient) Apply(_ context.Context, ops []driver.Op) ([]driver.Reply, error) {
	var out Applied
	err := c.client.Call("Hub.Apply", ops, &out)
	return out.Replies, err
}

// Vouch implements driver.Store.
func (c *HubClient) Vouch(context.Context) (v driver.Vouch, err error) {
	err = c.client.Call("Hub.Vouch", struct{}{}, &v)
	return v, err
}

// Handle is a handler whose effect is an entry in the Hub's journal. It goes on
// when its context is cancelled, as a process does that was stopped.
func (c *HubClient) Handle(_ context.Context, m *dedup.Message) ([]byte, error) {
	e := Effect{Process: c.process, Key: string(m.Key), Value: string(m.Value), Claim: m.Claim}
	if err := c.client.Call("Hub.Begin", e, new(struct{})); err != nil {
		return nil, err
	}
	<-time.After(2 * time.Millisecond) // work
	return nil, c.client.Call("Hub.Effect", e, new(struct{}))
}

// Hooks report each outcome to the Hub.
func (c *HubClient) Hooks() dedup.Hooks {
	return dedup.Hooks{Decided: func(e dedup.Event) {
		_ = c.client.Call("Hub.Decided", Decision{c.process, e.Result.Outcome}, new(struct{})) // the test misses it
	}}
}

// Process is a process that a test started.
type Process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	out  *strings.Builder
}

// StartProcess starts this test binary again, to run the one test named, with a
// variable added to the environment. It is killed at the end of the test.
func StartProcess(t *testing.T, name, test, env string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, out: &strings.Builder{}}
	p.cmd = exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.count=1")
	p.cmd.Env = append(os.Environ(), env)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// Kill sends SIGKILL.
func (p *Process) Kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Error(err)
	}
}

// Stop sends SIGTERM, and wants the process to end well.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	if err := p.cmd.Wait(); err != nil {
		p.t.Error(fmt.Errorf("the %s failed: %w\n%s", p.name, err, p.out))
	}
}
