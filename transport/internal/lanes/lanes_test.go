package lanes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// partition is a Line with its Window, and what the Line told.
type partition struct {
	number int32
	*window.Window
	line *Line

	mu     sync.Mutex
	halted int64 // offset + 1; 0: it has not
}

func newPartition(ctx context.Context, p *Pool, number int32) *partition {
	x := &partition{number: number, Window: window.New(0, window.Bounds{Messages: 1 << 20, Bytes: 1 << 30, Ahead: 1 << 30}, window.NewBudget(1<<30, 1<<30))}
	x.line = p.Line(ctx, x)
	return x
}

func (p *partition) Settled(f *window.Flight) { f.Settle() }

func (p *partition) Halt(offset int64, _ dedup.Result) {
	p.mu.Lock()
	p.halted = offset + 1
	p.mu.Unlock()
	p.line.Stop()
}

func (p *partition) hasHalted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.halted > 0
}

// put hands over messages with the given keys, the first at offset from. "" is no key.
func (p *partition) put(t context.Context, from int64, keys ...string) {
	ms := make([]dedup.Message, len(keys))
	for i, key := range keys {
		ms[i] = dedup.Message{Published: time.Now(), Position: dedup.Position{Source: "t", Partition: p.number, Offset: from + int64(i)}}
		if key != "" {
			ms[i].Key = []byte(key)
		}
	}
	p.line.Put(p.Dispatch(t, ms))
}

func (p *partition) watermark() int64 {
	offset, _ := p.Watermark()
	return offset
}

func newDeduplicator(t testing.TB, o dedup.Options) *dedup.Deduplicator {
	t.Helper()
	o.OnStale = dedup.PolicyProcess
	d, err := dedup.New(memstore.New(nil), "s", dedup.PositionKey(), &o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pools makes a Pool of each kind, of one handler.
var pools = map[string]func(d Deduplicator, workers int, h dedup.Handler) *Pool{
	"single": func(d Deduplicator, workers int, h dedup.Handler) *Pool { return NewSingle(workers, d, h, func() {}) },
	"batch": func(d Deduplicator, _ int, h dedup.Handler) *Pool {
		return NewBatch(32, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
			answers := make([]dedup.Answer, len(ms))
			failed := map[string]bool{}
			for i, m := range ms {
				if m.Key != nil && failed[string(m.Key)] { // inside a batch, order is the handler's duty
					answers[i].Err = errors.New("behind one that failed")
					continue
				}
				answers[i].Result, answers[i].Err = h(ctx, m)
				failed[string(m.Key)] = answers[i].Err != nil
			}
			return answers
		}, func() {})
	},
}

// TestOrderPerKey: whatever fails, the messages of a key are settled in their order,
// none while another of its key runs, and everything is settled in the end. A
// partition that halts leaves the others alone.
func TestOrderPerKey(t *testing.T) {
	for name, newPool := range pools {
		t.Run(name, func(t *testing.T) {
			outer = t
			rapid.Check(t, func(t *rapid.T) {
				seed := rapid.Uint64().Draw(t, "seed")
				bubble(t, func() { orderPerKey(t, newPool, rand.New(rand.NewPCG(seed, 1))) })
			})
		})
	}
}

func orderPerKey(t *rapid.T, newPool func(Deduplicator, int, dedup.Handler) *Pool, r *rand.Rand) {
	const partitions = 2
	var (
		mu      sync.Mutex
		errs    []string
		got     = map[string][]int64{}
		running = map[string]bool{}
		halts   = r.IntN(3) == 0
	)
	keyOf := func(m *dedup.Message) string { return fmt.Sprint(m.Position.Partition, "/", string(m.Key)) }
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return r.IntN(n)
	}
	d, err := dedup.New(memstore.New(nil), "s", dedup.PositionKey(), &dedup.Options{OnStale: dedup.PolicyProcess, Backoff: func(int) time.Duration { return time.Duration(roll(30)) * time.Millisecond }})
	if err != nil {
		t.Fatal(err)
	}
	h := func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		key := keyOf(m)
		if m.Key != nil {
			mu.Lock()
			if running[key] {
				errs = append(errs, fmt.Sprintf("%v runs beside one of its key", m.Position))
			}
			running[key] = true
			mu.Unlock()
			defer func() {
				mu.Lock()
				delete(running, key)
				mu.Unlock()
			}()
		}
		if n := roll(20); n > 10 {
			time.Sleep(time.Duration(n*n/4) * time.Millisecond)
		}
		switch n := roll(20); {
		case n == 0:
			mu.Lock()
			now := halts
			halts = false
			mu.Unlock()
			if now {
				return nil, dedup.Permanent(errors.New("no dead letters"))
			}
		case n < 5:
			return nil, dedup.Transient(errors.New("not yet"))
		}
		mu.Lock()
		defer mu.Unlock()
		if m.Key != nil {
			got[key] = append(got[key], m.Position.Offset)
		}
		return nil, nil
	}
	p := newPool(CoreOf(d), 1+roll(5), h)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var ps []*partition
	want := map[string][]int64{}
	ends := make([]int64, partitions)
	for i := range partitions {
		x := newPartition(ctx, p, int32(i))
		ps = append(ps, x)
		for range 1 + roll(3) {
			keys := make([]string, roll(40))
			for j := range keys {
				if k := roll(5); k > 0 {
					keys[j] = fmt.Sprint("key", k)
					lane := fmt.Sprint(i, "/", keys[j])
					want[lane] = append(want[lane], ends[i]+int64(j))
				}
			}
			if len(keys) > 0 {
				x.put(ctx, ends[i], keys...)
				ends[i] += int64(len(keys))
			}
		}
	}
	deadline := time.Now().Add(time.Hour)
	for i, x := range ps {
		for x.watermark() != ends[i] && !x.hasHalted() {
			if time.Now().After(deadline) {
				t.Fatalf("partition %d: got watermark %d after an hour, want %d", i, x.watermark(), ends[i])
			}
			time.Sleep(time.Second)
		}
		x.line.Stop()
		<-x.line.Idle()
	}
	if handlers, others := p.Running(); handlers != 0 {
		t.Errorf("in the end: got %d handlers and %d other calls, want none", handlers, others)
	}
	if err := d.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, e := range errs {
		t.Error(e)
	}
	for key, offsets := range got {
		// A message that ran and was not recorded may run again; here none is.
		if full := want[key]; len(offsets) > len(full) || !slices.Equal(offsets, full[:len(offsets)]) {
			t.Errorf("key %s: got %v, want %v", key, offsets, full)
		}
	}
}

// TestStuckHandlerHoldsUpItsKeyOnly: the handler of one key does not return. All other
// keys of its partition, and of others, go on, though there are few workers.
func TestStuckHandlerHoldsUpItsKeyOnly(t *testing.T) {
	for name, newPool := range pools {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const messages, keys, stuckKey = 2000, 50, "key7"
				var once sync.Once
				release := make(chan struct{})
				var handled atomic.Int64
				d := newDeduplicator(t, dedup.Options{HandlerTimeout: -1, Concurrency: 8})
				p := newPool(CoreOf(d), 4, func(_ context.Context, m *dedup.Message) ([]byte, error) {
					if string(m.Key) == stuckKey && m.Position.Partition == 0 {
						once.Do(func() { <-release })
					}
					handled.Add(1)
					return nil, nil
				})
				var ps []*partition
				for i := range int32(3) {
					x := newPartition(t.Context(), p, i)
					ps = append(ps, x)
					all := make([]string, messages)
					for j := range all {
						all[j] = fmt.Sprint("key", j%keys)
					}
					x.put(t.Context(), 0, all...)
				}
				time.Sleep(time.Minute)
				behind := messages / keys
				if name == "batch" { // those of its batch wait too: 32 of 50 keys
					behind = 32 * messages / keys
				}
				for i, x := range ps {
					want := 0
					if i == 0 {
						want = behind
					}
					if got := x.Load().Messages; got != want {
						t.Errorf("partition %d: got %d messages in flight beside the handler that is stuck, want %d", i, got, want)
					}
				}
				if got, _ := p.Running(); got != 1 {
					t.Errorf("got %d handlers that run, want 1", got)
				}
				close(release)
				time.Sleep(time.Minute)
				for i, x := range ps {
					if x.watermark() != messages {
						t.Errorf("partition %d: got watermark %d, want %d", i, x.watermark(), messages)
					}
					x.line.Stop()
					<-x.line.Idle()
				}
				if got := handled.Load(); got != 3*messages {
					t.Errorf("got %d messages handled, want %d", got, 3*messages)
				}
				_ = d.Shutdown(context.Background())
			})
		})
	}
}

// A Line that is stopped begins nothing, and is idle when its handlers have returned;
// the other Lines of the Pool go on.
func TestStopLeavesTheOthers(t *testing.T) {
	for name, newPool := range pools {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDeduplicator(t, dedup.Options{})
				p := newPool(CoreOf(d), 4, func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(10 * time.Second):
						return nil, nil
					}
				})
				gone, cancel := context.WithCancel(t.Context())
				a, b := newPartition(gone, p, 0), newPartition(t.Context(), p, 1)
				a.put(t.Context(), 0, "a")
				b.put(t.Context(), 0, "b")
				time.Sleep(time.Second)
				a.put(t.Context(), 1, "c", "d")
				a.line.Stop()
				a.line.Stop()
				select {
				case <-a.line.Idle():
					t.Error("a handler runs: the Line is idle")
				default:
				}
				a.put(t.Context(), 3, "e")
				time.Sleep(time.Second)
				cancel()
				<-a.line.Idle()
				if got := a.watermark(); got != 0 {
					t.Errorf("the handler was cancelled: got watermark %d, want 0", got)
				}
				time.Sleep(time.Minute)
				if got := b.watermark(); got != 1 {
					t.Errorf("the other partition: got watermark %d, want 1", got)
				}
				b.line.Stop()
				<-b.line.Idle()
				_ = d.Shutdown(context.Background())
			})
		})
	}
}

// Messages that wait for long keep the memory of nothing else.
func TestWaitingMessagesAreCutLoose(t *testing.T) {
	w := window.New(0, window.Bounds{Messages: 2, Bytes: 1 << 20, Ahead: 1 << 20}, window.NewBudget(1<<30, 1<<30))
	value := []byte("value of a large fetch")
	message := func(offset int64) []dedup.Message {
		return []dedup.Message{{Key: []byte("k"), Value: value, Headers: dedup.Headers{{Key: "h", Value: value}, {Key: "null"}}, Position: dedup.Position{Offset: offset}}}
	}
	w.Dispatch(t.Context(), message(0))
	f := w.Dispatch(t.Context(), message(100))[0]
	got := alone(f).Message
	if &got.Value[0] == &value[0] || &got.Headers[0].Value[0] == &value[0] {
		t.Error("the message shares memory with its fetch")
	}
	if string(got.Value) != string(value) || string(got.Key) != "k" || got.Position.Offset != 100 || len(got.Headers) != 2 || got.Headers[1].Value != nil {
		t.Errorf("got %+v", got)
	}
}
