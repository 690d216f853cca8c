// Package redisbench compares store/redis with the code that its users write by hand, and with
// redis-benchmark. Each round has a redis-server of its own, with an append-only file
// that is synced every second.
package redisbench

import (
	"context"
	"os/exec"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// Suite is claim and record per message, on a server with keys in it.
var Suite = harness.Suite{
	Name:     "redis",
	What:     "claim, trivial handler and record on Redis, in batches of 256; appendfsync everysec",
	Messages: 32_000, // benchmarkShare of them fill what is left of a table of 2^17
	Declare:  declare,
}

func declare(_ context.Context, r *harness.Run) error {
	for _, name := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(name); err != nil {
			return harness.Skip(name + " is not in PATH: install Redis 7 (Debian: redis-server, redis-tools)")
		}
	}
	contend := func(name, what string, share float64, cluster bool, fn contest) {
		r.Contend(harness.Contender{Name: name, What: what, Share: share, Round: func(ctx context.Context, hr *harness.Round) error {
			return round(ctx, hr, max(r.Messages, hr.Messages), cluster, fn)
		}})
	}
	contend("batch", "ours, DoBatch with two batches in flight: a script for a batch", 1, false, ours((*work.Batch).DoBatch))
	contend("benchmark", "redis-benchmark -c 1 -P 64 SET k v NX GET PX: commands, not messages, and its CPU not counted", benchmarkShare, false, benchmark)
	contend("keys", "the same DoBatch on a Redis Cluster of one node: a script for a key", 1, true, ours((*work.Batch).DoBatch))
	contend("do", "ours, Do with 256 callers", 0.5, false, ours((*work.Batch).Do))
	contend("setnx", "by hand, SET NX PX from 64 goroutines: no owner, no lease, no result", 0.5, false, setNX)
	contend("single", "by hand, SET NX GET PX and SET XX PX, each waited for, from one caller: not fenced", 0.1, false, single)

	r.Figure(harness.Figure{What: "a script for a key / redis-benchmark", Unit: "x", Bar: 0.18, Goal: 0.25, From: harness.Ratio("keys", "benchmark")})
	r.Figure(harness.Figure{What: "a script for a batch / redis-benchmark", Unit: "x", Bar: 0.35, Goal: 0.5, From: harness.Ratio("batch", "benchmark")})
	r.Figure(harness.Figure{What: "batch / single", Unit: "x", Bar: 4, From: harness.Ratio("batch", "single")})
	r.Figure(harness.Figure{What: "batch / setnx", Unit: "x", Bar: 0.8, Goal: 1, From: harness.Ratio("batch", "setnx")})
	r.Figure(harness.Figure{What: "do / batch", Unit: "x", Bar: 0.6, From: harness.Ratio("do", "batch")})
	r.Figure(harness.Figure{What: "round trips per message, batch", AtMost: true, Bar: 0.016, From: harness.Median(roundTrips, "batch")})
	r.Figure(harness.Figure{What: "bytes to the append-only file per message, batch", Unit: "B", AtMost: true, Bar: 260, From: harness.Median(fileBytes, "batch")})
	r.Figure(harness.Figure{What: "allocations per message, batch", AtMost: true, Bar: 12, From: harness.Median(harness.Allocs, "batch")})
	declareMemory(r)
	return nil
}
