package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/hangtest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(hangtest.M(m)) }

// faulty is a store that does to chosen calls of Apply what a network does.
type faulty struct {
	*memstore.Store
	mu     sync.Mutex
	before func(ops []driver.Op) error // called first; its error means that nothing was attempted
	after  func(ops []driver.Op, replies []driver.Reply)
	calls  [][]driver.Op

	recycled int  // answers
	twice    bool // one of them
}

func (f *faulty) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	f.mu.Lock()
	f.calls = append(f.calls, append([]driver.Op(nil), ops...))
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(ops); err != nil {
			return nil, err
		}
	}
	replies, err := f.Store.Apply(ctx, ops)
	if after != nil && err == nil {
		after(ops, replies)
	}
	return replies, err
}

var recycled = driver.Reply{Status: 99, Record: driver.Record{Token: 1 << 62, Result: []byte("recycled")}, Err: errors.New("read after it was recycled")}

// Recycle makes an error of a reply that is read again, and counts.
func (f *faulty) Recycle(replies []driver.Reply) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recycled++
	f.twice = f.twice || errors.Is(replies[0].Err, recycled.Err)
	for i := range replies {
		replies[i] = recycled
	}
}

func (f *faulty) sent(kind driver.OpKind) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ops := range f.calls {
		for _, op := range ops {
			if op.Kind == kind {
				n++
			}
		}
	}
	return n
}

var errBroken = errors.New("broken pipe")

// loseReplies answers as a connection does that is cut after the server
// executed: the ops of the kind took effect, and their replies are lost.
func loseReplies(kind driver.OpKind, times int) func([]driver.Op, []driver.Reply) {
	var mu sync.Mutex
	return func(ops []driver.Op, replies []driver.Reply) {
		mu.Lock()
		defer mu.Unlock()
		for i := range ops {
			if ops[i].Kind == kind && times > 0 {
				times--
				replies[i] = driver.Reply{Err: errBroken}
			}
		}
	}
}

// newStore returns a store that vouches for all the past, so that nothing is stale.
func newStore() *faulty {
	return &faulty{Store: memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)})}
}

func newDedup(t *testing.T, s driver.Store, o *dedup.Options) *dedup.Deduplicator {
	t.Helper()
	hangtest.Watch(t)
	d, err := dedup.New(s, "orders", dedup.HeaderKey(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return d
}

var offset atomic.Int64

// message returns a delivery of a message with the key, at a position of its own.
func message(key, value string) *dedup.Message {

	m := &dedup.Message{
		Topic: "orders", Value: []byte(value), Published: time.Now(),
		Position: dedup.Position{Source: "orders", Offset: offset.Add(1)},
	}
	if key != "" {
		m.Headers.SetKey(dedup.Key(key))
	}
	return m
}

// handler counts its runs and does what its script says for each.
type handler struct {
	mu     sync.Mutex
	claims []dedup.Claim
	script func(run int, ctx context.Context, m *dedup.Message) ([]byte, error)
}

func (h *handler) handle(ctx context.Context, m *dedup.Message) ([]byte, error) {
	h.mu.Lock()
	h.claims = append(h.claims, m.Claim)
	run := len(h.claims)
	h.mu.Unlock()
	if h.script == nil {
		return []byte(fmt.Sprintf("result %d", run)), nil
	}
	return h.script(run, ctx, m)
}

func (h *handler) runs() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.claims)
}

func (h *handler) claim(run int) dedup.Claim {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.claims[run-1]
}

// fails returns a handler that fails its first runs with err.
func fails(err error, first int) *handler {
	return &handler{script: func(run int, _ context.Context, _ *dedup.Message) ([]byte, error) {
		if run <= first {
			return nil, err
		}
		return []byte("ok"), nil
	}}
}

// letters collects dead letters.
type letters struct {
	mu   sync.Mutex
	whys []error
	err  error
}

func (l *letters) send(_ context.Context, _ *dedup.Message, why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.whys = append(l.whys, why)
	return nil
}

func want(t *testing.T, r dedup.Result, outcome dedup.Outcome, settled bool) {
	t.Helper()
	if r.Outcome != outcome || r.Settled() != settled {
		t.Fatalf("got %v, settled %v (err %v), want %v, settled %v", r.Outcome, r.Settled(), r.Err, outcome, settled)
	}
}
