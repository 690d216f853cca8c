//go:build real

package redisstore_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// to returns a way to connect to a server.
func to(addr string) func() redis.UniversalClient {
	return func() redis.UniversalClient { return redis.NewClient(&redis.Options{Addr: addr}) }
}

func TestRealSingleLostReplies(t *testing.T) {
	s := startServer(t)
	p := startProxy(t, s.addr)
	w := newWorld(t, to(p.addr()))
	w.during(func() {
		p.every.Store(20)
		w.until("200 replies lost", func() bool { return p.cuts.Load() >= 200 })
		p.every.Store(0)
	})
	if got, most := w.flaggedRuns(), 2*inHand; got > most {
		t.Errorf("got %d flagged second runs, want none, or at most %d on a machine that stands still: a nonce or a token tells what a lost reply said", got, most)
	}
}

func TestRealSinglePauseAndFlush(t *testing.T) {
	s := startServer(t)
	w := newWorld(t, to(s.addr))
	w.during(func() {
		s.do("script", "flush", "sync")
		w.progress(200)
		s.do("client", "pause", 3000, "all") // longer than Timeout, and than a lease
		w.progress(200)
		s.do("client", "kill", "type", "normal", "skipme", "yes")
		w.progress(200)
		s.do("script", "flush", "sync")
	})
}

// What was acknowledged is there again, so nothing that was settled runs again.
func TestRealSingleRestartWithAppendOnlyFile(t *testing.T) {
	s := startServer(t, "--appendonly", "yes", "--appendfsync", "always")
	w := newWorld(t, to(s.addr))
	w.during(func() {
		for range 3 {
			s.kill()
			s.start()
			w.progress(200)
		}
	})
	// Of those in hand at a kill, or when the machine stands still, what was answered
	// and what not is unknown.
	if got, most := w.flaggedRuns(), (3+2)*inHand; got > most {
		t.Errorf("got %d flagged second runs, want at most the %d in hand at a kill", got, most)
	}
}

// Everything is gone: what comes again runs again, flagged.
func TestRealSingleRestartWithoutPersistence(t *testing.T) {
	s := startServer(t, "--appendonly", "no")
	w := newWorld(t, to(s.addr))
	w.during(func() {
		s.kill()
		s.start()
	})
	if w.flaggedRuns() == 0 {
		t.Error("got no flagged second run, want those whose records are gone: the test has no teeth")
	}
}

func TestRealSingleWrongDatabase(t *testing.T) {
	s := startServer(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, DB: 99})
	t.Cleanup(func() { _ = client.Close() })
	store, err := redisstore.New(client, &patient)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "choose a database that the server has") {
		t.Errorf("Check: got %v, want an error that says to choose another database", err)
	}
}

// A full server refuses claims, and takes what ends them.
func TestRealSingleOutOfMemory(t *testing.T) {
	s := startServer(t)
	client := redis.NewClient(&redis.Options{Addr: s.addr, ReadTimeout: -1})
	t.Cleanup(func() { _ = client.Close() })
	store := realStore(t, client, &patient)
	ctx, cancel := context.WithTimeout(context.Background(), worldPatience)
	defer cancel()
	claim := func(n int) driver.Reply {
		t.Helper()
		got, err := store.Apply(ctx, []driver.Op{{
			Kind: driver.OpClaim, ID: dedup.NewID("memory", dedup.Key(fmt.Sprint(n))), Nonce: uint64(n) + 1, Lease: time.Minute, TTL: time.Hour,
		}})
		if err != nil {
			return driver.Reply{Err: err}
		}
		return got[0]
	}
	held := claim(0)
	if held.Status != driver.StatusGranted {
		t.Fatalf("claim: got %v, %v, want it granted", held.Status, held.Err)
	}
	s.do("config", "set", "maxmemory", "1mb")
	refused := claim(1)
	if refused.Err == nil || !strings.Contains(refused.Err.Error(), "maxmemory") {
		t.Errorf("claim on a full server: got %v, %v, want an error that names maxmemory", refused.Status, refused.Err)
	}
	got, err := store.Apply(ctx, []driver.Op{
		{Kind: driver.OpExtend, ID: dedup.NewID("memory", "0"), Token: held.Record.Token, Lease: time.Minute, TTL: time.Hour},
		{Kind: driver.OpComplete, ID: dedup.NewID("memory", "0"), Token: held.Record.Token, TTL: time.Hour, Result: make([]byte, 1000)},
	})
	if err != nil || got[0].Status != driver.StatusOK || got[1].Status != driver.StatusOK {
		t.Errorf("extend and complete on a full server: got %+v, %v, want both OK", got, err)
	}
	s.do("config", "set", "maxmemory", "0")
	if again := claim(1); again.Status != driver.StatusGranted {
		t.Errorf("claim when there is memory again: got %v, %v, want it granted", again.Status, again.Err)
	}
}

func TestRealSingleOutOfMemoryUnderLoad(t *testing.T) {
	s := startServer(t)
	w := newWorld(t, to(s.addr))
	w.during(func() {
		for range 3 {
			s.do("config", "set", "maxmemory", "1mb")
			time.AfterFunc(time.Second, func() { s.do("config", "set", "maxmemory", "0") })
			w.progress(200)
		}
	})
}

// cluster is what scripts/redis-cluster.sh has started.
type cluster struct {
	t     *testing.T
	addrs []string
}

func realCluster(t *testing.T) *cluster {
	t.Helper()
	nodes := os.Getenv("REDIS_CLUSTER")
	if nodes == "" || os.Getenv("REDIS_SCRIPT") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("REDIS_CLUSTER and REDIS_SCRIPT are not set: CI tests against real servers")
		}
		t.Skip("REDIS_CLUSTER and REDIS_SCRIPT are not set; see scripts/redis-cluster.sh")
	}
	return &cluster{t, strings.Split(nodes, ",")}
}

func (c *cluster) connect() redis.UniversalClient {
	return redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.addrs})
}

// script runs a subcommand of the script that started the servers.
func script(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(os.Getenv("REDIS_SCRIPT"), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", os.Getenv("REDIS_SCRIPT"), args, err, out)
	}
}

// masters returns the ports of those with slots; none, if nobody tells.
func (c *cluster) masters() (ports []string) {
	client := c.connect()
	defer client.Close()
	slots, _ := client.ClusterSlots(context.Background()).Result()
	seen := map[string]bool{}
	for _, s := range slots {
		if len(s.Nodes) == 0 {
			continue
		}
		addr := s.Nodes[0].Addr
		if port := addr[strings.LastIndex(addr, ":")+1:]; !seen[port] {
			seen[port] = true
			ports = append(ports, port)
		}
	}
	return ports
}

// threeMasters waits until there are.
func (c *cluster) threeMasters() (ports []string) {
	c.t.Helper()
	transporttest.Eventually(c.t, "three masters", func() bool {
		ports = c.masters()
		return len(ports) == 3
	})
	return ports
}

// failOverAfter says how long a node must be away until its replica takes over.
func (c *cluster) failOverAfter(d time.Duration) {
	c.t.Helper()
	for _, addr := range c.addrs {
		node := redis.NewClient(&redis.Options{Addr: addr})
		must(c.t, node.ConfigSet(context.Background(), "cluster-node-timeout", strconv.FormatInt(d.Milliseconds(), 10)).Err())
		must(c.t, node.Close())
	}
}

func (c *cluster) onMasters(args ...any) {
	c.t.Helper()
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.addrs})
	defer client.Close()
	must(c.t, client.ForEachMaster(context.Background(), func(ctx context.Context, m *redis.Client) error {
		return m.Do(ctx, args...).Err()
	}))
}

func TestRealClusterMasterKilled(t *testing.T) {
	c := realCluster(t)
	t.Cleanup(func() { c.failOverAfter(time.Minute) })
	w := newWorld(t, c.connect)
	w.during(func() {
		for _, port := range c.threeMasters()[:2] {
			c.failOverAfter(4 * time.Second) // a node that was started again has forgotten it
			script(t, "crash", port)
			w.until("another master in its place", func() bool {
				ports := c.masters()
				return len(ports) == 3 && !strings.Contains(strings.Join(ports, " "), port)
			})
			w.progress(500)
			script(t, "resume", port)
			w.progress(500)
		}
	})
}

func TestRealClusterSlotsMoved(t *testing.T) {
	c := realCluster(t)
	w := newWorld(t, c.connect)
	w.during(func() {
		ports := c.threeMasters()
		for i := range ports {
			script(t, "move", ports[i], ports[(i+1)%len(ports)], "500")
			w.progress(300)
		}
	})
	if got, most := w.flaggedRuns(), 2*inHand; got > most {
		t.Errorf("got %d flagged second runs, want none, or at most %d on a machine that stands still: moving slots loses nothing", got, most)
	}
}

func TestRealClusterPauseAndFlush(t *testing.T) {
	c := realCluster(t)
	w := newWorld(t, c.connect)
	w.during(func() {
		c.onMasters("script", "flush", "sync")
		w.progress(300)
		c.onMasters("client", "pause", 3000, "all")
		w.progress(300)
		c.onMasters("client", "kill", "type", "normal", "skipme", "yes")
	})
}

// A dead node fails its own operations, and no others.
func TestRealClusterDeadNodeFailsItsOwn(t *testing.T) {
	c := realCluster(t)
	client := c.connect()
	t.Cleanup(func() { _ = client.Close() })
	store := realStore(t, client, &redisstore.Options{Timeout: 500 * time.Millisecond})
	ops := make([]driver.Op, 60)
	for i := range ops {
		ops[i] = driver.Op{Kind: driver.OpClaim, ID: dedup.NewID("node", dedup.Key(fmt.Sprint(i))), Nonce: uint64(i) + 1, Lease: time.Minute, TTL: time.Hour}
	}
	ctx, cancel := context.WithTimeout(context.Background(), worldPatience)
	defer cancel()
	transporttest.Eventually(t, "all to be granted", func() bool {
		got, err := store.Apply(ctx, ops)
		return err == nil && !slices.ContainsFunc(got, func(r driver.Reply) bool { return r.Err != nil })
	})
	port := c.threeMasters()[0]
	script(t, "crash", port)
	got, err := store.Apply(ctx, ops)
	script(t, "resume", port)
	if err != nil {
		t.Fatalf("Apply: got %v, want errors of single operations only", err)
	}
	failed := 0
	for i := range got {
		if got[i].Err != nil {
			failed++
		} else if got[i].Status != driver.StatusGranted {
			t.Errorf("operation %d: got %v, want it granted to the same nonce", i, got[i].Status)
		}
	}
	if failed == 0 || failed == len(ops) {
		t.Errorf("got %d of %d operations failed, want those of one node", failed, len(ops))
	}
	w := newWorld(t, c.connect)
	w.during(func() {}) // the cluster is whole again for the next test
}

func TestRealSentinelFailover(t *testing.T) {
	sentinels := os.Getenv("REDIS_SENTINELS")
	if sentinels == "" || os.Getenv("REDIS_SCRIPT") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("REDIS_SENTINELS and REDIS_SCRIPT are not set: CI tests against real servers")
		}
		t.Skip("REDIS_SENTINELS and REDIS_SCRIPT are not set; see scripts/redis.sh")
	}
	addrs := strings.Split(sentinels, ",")
	w := newWorld(t, func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: addrs})
	})
	master := func() string {
		s := redis.NewSentinelClient(&redis.Options{Addr: addrs[0]})
		defer s.Close()
		addr, err := s.GetMasterAddrByName(context.Background(), "main").Result()
		must(t, err)
		return addr[1]
	}
	failOverAfter := func(d time.Duration) {
		for _, addr := range addrs {
			s := redis.NewSentinelClient(&redis.Options{Addr: addr})
			must(t, s.Set(context.Background(), "main", "down-after-milliseconds", strconv.FormatInt(d.Milliseconds(), 10)).Err())
			must(t, s.Close())
		}
	}
	failOverAfter(time.Second)
	t.Cleanup(func() { failOverAfter(time.Minute) })
	w.during(func() {
		port := master()
		script(t, "crash", port)
		w.until("another master", func() bool { return master() != port })
		w.progress(500)
		script(t, "resume", port) // a replica from now on
		w.progress(500)
	})
}
