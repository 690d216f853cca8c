//go:build real

package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// world is a stream of messages, each delivered several times, to two members
// with a client each on the same servers, while something goes wrong with those.
// It watches what handlers see: of one key there may be no second run, at the same
// time or later, whose claim is not flagged, and no token that is not greater than
// the one before.
type world struct {
	t       *testing.T
	members []*dedup.Deduplicator
	ctx     context.Context

	mu        sync.Mutex
	published []time.Time
	running   map[int]int
	runs      map[int]int
	tokens    map[int]driver.Token
	flagged   int // second runs that were
	wrong     []string
	settled   int // deliveries
	done      chan struct{}
}

const (
	worldMembers = 2
	worldWorkers = 8 // of each
	// What goes wrong must be over for the members by then.
	worldPatience = 4 * time.Minute
)

// newWorld has members whose clients connect makes.
func newWorld(t *testing.T, connect func() redis.UniversalClient) *world {
	t.Helper()
	w := &world{t: t, running: map[int]int{}, runs: map[int]int{}, tokens: map[int]driver.Token{}, done: make(chan struct{})}
	prefix := "world-" + strconv.FormatUint(rand.Uint64(), 36) + ":"
	var sweeper redis.UniversalClient
	for range worldMembers {
		client := connect()
		sweeper = client
		s, err := redisstore.New(client, &redisstore.Options{Prefix: prefix, Logger: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		d, err := dedup.New(s, "world", dedup.HeaderKey(), &dedup.Options{Lease: 2 * time.Second, Concurrency: worldWorkers, Logger: logger(t)})
		if err != nil {
			t.Fatal(err)
		}
		w.members = append(w.members, d)
		t.Cleanup(func() { _ = client.Close() })
	}
	t.Cleanup(func() { sweep(t, sweeper, prefix) })
	return w
}

// during keeps the members busy while fault runs, and for some time before and
// after it. Then it delivers everything once more, and checks.
func (w *world) during(fault func()) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), worldPatience)
	defer cancel()
	w.ctx = ctx
	var workers sync.WaitGroup
	for _, d := range w.members {
		for range worldWorkers {
			workers.Go(func() {
				for w.ctx.Err() == nil {
					select {
					case <-w.done:
						return
					default:
					}
					n := w.publish()
					w.deliver(d, n)
					w.deliver(d, rand.IntN(n+1)) // a redelivery, or a retry of the producer
				}
			})
		}
	}
	w.progress(500)
	fault()
	w.progress(1000)
	close(w.done)
	workers.Wait()
	w.again()
	w.check()
	for _, d := range w.members {
		if err := d.Shutdown(ctx); err != nil {
			w.t.Errorf("Shutdown: %v", err)
		}
	}
}

// again delivers every message once more, to one member or the other.
func (w *world) again() {
	var workers sync.WaitGroup
	for k := range worldWorkers {
		workers.Go(func() {
			for n := k; n < len(w.published); n += worldWorkers {
				w.deliver(w.members[n%worldMembers], n)
			}
		})
	}
	workers.Wait()
}

func (w *world) publish() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.published = append(w.published, time.Now())
	return len(w.published) - 1
}

func (w *world) deliver(d *dedup.Deduplicator, n int) {
	w.mu.Lock()
	m := &dedup.Message{Topic: "world", Value: []byte(strconv.Itoa(n)), Position: driver.Position{Source: "world", Offset: int64(n)}, Published: w.published[n]}
	w.mu.Unlock()
	m.Headers.SetKey(dedup.Key(m.Value))
	_, err := d.Settle(w.ctx, m, w.handle)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.say("message %d is not settled within %v: %v", n, worldPatience, err)
		return
	}
	w.settled++
}

func (w *world) handle(ctx context.Context, m *dedup.Message) ([]byte, error) {
	n, err := strconv.Atoi(string(m.Value))
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	if w.running[n]+w.runs[n] > 0 {
		if m.Claim.Ambiguous || m.Claim.Stale {
			w.flagged++
		} else {
			w.say("message %d runs again, unflagged, after %d runs and beside %d", n, w.runs[n], w.running[n])
		}
	}
	if m.Claim.Token <= w.tokens[n] {
		w.say("message %d: token %d comes after %d", n, m.Claim.Token, w.tokens[n])
	}
	w.tokens[n] = m.Claim.Token
	w.running[n]++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.running[n]--
		w.runs[n]++
	}()
	work := time.NewTimer(rand.N(3 * time.Millisecond))
	defer work.Stop()
	select {
	case <-work.C:
		return m.Value, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// say notes what is wrong. The caller holds mu.
func (w *world) say(format string, args ...any) {
	if len(w.wrong) < 10 {
		w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
	}
}

// progress waits for n more deliveries to be settled: the world goes on by itself.
func (w *world) progress(n int) {
	w.t.Helper()
	w.mu.Lock()
	want := w.settled + n
	w.mu.Unlock()
	w.until(fmt.Sprintf("%d deliveries settled", n), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.settled >= want
	})
}

func (w *world) until(what string, holds func() bool) {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-w.ctx.Done():
			w.t.Fatalf("not within %v: %s", worldPatience, what)
		}
	}
}

func (w *world) check() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.wrong {
		w.t.Error(s)
	}
	for n := range w.published {
		if w.runs[n] == 0 {
			w.t.Errorf("message %d never ran", n)
		}
	}
	w.t.Logf("%d messages, %d deliveries settled, %d flagged second runs", len(w.published), w.settled, w.flagged)
}

// inHand is how many messages the members have in hand at most: so many second runs
// are flagged where a server, or the machine, stands still for longer than a lease.
const inHand = worldMembers * worldWorkers

// flaggedRuns is how many second runs there were, all of them flagged.
func (w *world) flaggedRuns() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flagged
}

// must fails the test for what the test itself needs.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
}
