//go:build real && linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/relay"
)

// realRedis returns the URL of the store that the tests against real servers use:
// REDIS_URL, the nodes of REDIS_CLUSTER, or a master of REDIS_SENTINELS.
func realRedis(t *testing.T) string {
	t.Helper()
	if nodes := os.Getenv("REDIS_CLUSTER"); nodes != "" {
		return "redis+cluster://" + nodes
	}
	if sentinels := os.Getenv("REDIS_SENTINELS"); sentinels != "" {
		return "redis+sentinel://" + sentinels + "/main"
	}
	if url := os.Getenv("REDIS_URL"); url != "" {
		return url
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("none of REDIS_URL, REDIS_SENTINELS and REDIS_CLUSTER is set: CI tests against real servers")
	}
	t.Skip("none of REDIS_URL, REDIS_SENTINELS and REDIS_CLUSTER is set")
	return ""
}

// Two relays of one group share the records. One of them is killed: the other takes
// over its partitions, and what may have been written twice says so.
func TestRealTwoRelaysOnOneRedis(t *testing.T) {
	const (
		messages   = 100_000
		keys       = 80_000 // the rest are retries of the producer
		partitions = 6
		produced   = 1000 // at once
	)
	store := realRedis(t)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	began := time.Now().Add(-time.Minute)
	group := fmt.Sprintf("two-relays-%d", began.UnixNano()) // and so the scope of the records
	k := brokertest.NewKafka(t, map[string]int32{"orders": partitions, "orders.once": partitions}, nil)
	var relays [2]*exec.Cmd
	var outputs [2]output
	for i := range relays {
		cmd := exec.Command(os.Args[0], "run", "--listen", "", "--store", store, "--vouch-from", began.Format(time.RFC3339),
			"--from", "kafka://"+k.Addrs()[0]+"/orders?group="+group+"&session=6s", "--to", "kafka://"+k.Addrs()[0]+"/orders.once")
		cmd.Env = append(os.Environ(), asRelay+"=1")
		cmd.Stderr = &outputs[i]
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		relays[i] = cmd
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			if t.Failed() {
				t.Logf("relay %d:\n%s", i, outputs[i].String())
			}
		})
	}
	for first := 0; first < messages; first += produced {
		records := make([]*kgo.Record, produced)
		for i := range records {
			key := fmt.Sprint((first + i) % keys)
			records[i] = &kgo.Record{Topic: "orders", Key: []byte(key), Value: []byte(key), Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: []byte(key)}}}
		}
		if err := k.Produce(ctx, false, records...); err != nil {
			t.Fatal(err)
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for written := int64(0); written < messages/3; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("only %d messages were relayed", written)
		}
		written = 0
		for _, end := range k.Ends("orders.once") {
			written += end
		}
	}
	if err := relays[0].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := k.AwaitCommitted(ctx, group, "orders"); err != nil {
		t.Fatal(err)
	}
	if err := relays[1].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := relays[1].Wait(); err != nil {
		t.Errorf("the other relay: %v", err)
	}
	out, err := k.ReadTopic(ctx, "orders.once")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int, keys)
	flagged := 0
	for _, r := range out {
		if seen[string(r.Value)]++; seen[string(r.Value)] == 1 {
			continue
		}
		marked := false
		for _, h := range r.Headers {
			marked = marked || h.Key == relay.HeaderAmbiguous || h.Key == relay.HeaderStale
		}
		if !marked {
			t.Errorf("order %s came again, unflagged", r.Value)
		}
		flagged++
	}
	if len(seen) != keys {
		t.Errorf("got %d orders, want %d", len(seen), keys)
	}
	t.Logf("%d messages in, %d out, %d flagged repeats", messages, len(out), flagged)
}
