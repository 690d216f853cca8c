// Package boltbench compares store/bolt with embedded stores, and with the disk.
package boltbench

import (
	"bytes"
	"context"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// Suite is claim and record per message, with keys in the store before.
var Suite = harness.Suite{
	Name:     "bolt",
	What:     "claim, trivial handler and record on disk, in batches of 256; fsync on",
	Messages: 100_000,
	Declare:  declare,
}

// Keys in the stores before the first round. The naive use of bbolt has fewer, to
// its advantage: a larger tree is slower. So have the replies, all of which come
// from the last keys.
const (
	keys    = 1_000_000
	fewKeys = 100_000
)

func declare(_ context.Context, r *harness.Run) error {
	// A stream each, of the same seed: the same work.
	stream := func() *work.Stream { return work.New(1) }
	r.Contend(harness.Contender{
		Name: "batch", Syncs: true,
		What:  "ours, DoBatch with two batches in flight",
		Round: (&ours{stream: stream(), fill: r.Scaled(keys), run: doBatch}).round,
	})
	r.Contend(harness.Contender{
		Name: "raw", Syncs: true, Share: 2,
		What:  "a raw append-only file, one fdatasync per batch, a set of hashes in memory",
		Round: (&rawFile{stream: stream()}).round,
	})
	r.Contend(harness.Contender{
		Name: "pebble", Syncs: true, Share: 0.5,
		What:  "Pebble with a cache of 256 MB, claims and the records of the batch before in one synced commit",
		Round: (&onPebble{stream: stream(), fill: r.Scaled(keys)}).round,
	})
	r.Contend(harness.Contender{
		Name: "naive", Syncs: true, Share: 0.01,
		What:  "bbolt, an Update per claim and one per record; 100k keys instead of 1M",
		Round: (&plain{stream: stream(), fill: r.Scaled(fewKeys), run: oneByOne}).round,
	})
	r.Contend(harness.Contender{
		Name: "bbolt", Syncs: true, Share: 0.1,
		What:  "bbolt, an Update per batch, records under their random keys",
		Round: (&plain{stream: stream(), fill: r.Scaled(keys), run: inBatches}).round,
	})
	r.Contend(harness.Contender{
		Name: "do", Syncs: true,
		What:  "ours, Do with 256 callers",
		Round: (&ours{stream: stream(), fill: r.Scaled(keys), run: do}).round,
	})
	r.Contend(harness.Contender{
		Name: "apply", Syncs: true,
		What:  "ours, Store.Apply alone",
		Round: (&ours{stream: stream(), fill: r.Scaled(keys), run: apply}).round,
	})
	r.Contend(harness.Contender{
		Name:  "replies",
		What:  "ours, DoBatch of duplicates only, each answered with a recorded result of 100 bytes",
		Round: (&ours{stream: stream(), fill: r.Scaled(fewKeys), result: bytes.Repeat([]byte{'r'}, 100), repeats: true, run: doBatch}).round,
	})
	r.Contend(harness.Contender{
		Name: "watermill", Share: 0.25,
		What:  "Watermill's Deduplicator, in memory: nothing survives, and a failed message is lost",
		Round: (&inWatermill{stream: stream()}).round,
	})

	r.Figure(harness.Figure{What: "batch / naive", Unit: "x", Bar: 30, Goal: 40, From: harness.Ratio("batch", "naive")})
	r.Figure(harness.Figure{What: "batch / pebble", Unit: "x", Bar: 1.5, Goal: 2, From: harness.Ratio("batch", "pebble")})
	r.Figure(harness.Figure{What: "batch / raw", Unit: "x", Bar: 0.08, Goal: 0.12, From: harness.Ratio("batch", "raw")})
	r.Figure(harness.Figure{What: "do / batch", Unit: "x", Bar: 0.4, Goal: 0.6, From: harness.Ratio("do", "batch")})
	r.Figure(harness.Figure{What: "batch / watermill, which keeps nothing", Unit: "x", From: harness.Ratio("batch", "watermill")})
	r.Figure(harness.Figure{What: "fsyncs per 1,000 messages, batch", AtMost: true, Bar: 8.5, Goal: 7.9, From: harness.Median(harness.Syncs, "batch")})
	r.Figure(harness.Figure{What: "allocations per message, batch", AtMost: true, Bar: 14, From: harness.Median(harness.Allocs, "batch")})
	r.Figure(harness.Figure{What: "bytes to disk per message, batch", Unit: "B", AtMost: true, Bar: 300, Goal: 260, From: harness.Median(harness.DeviceBytes, "batch")})
	r.Figure(harness.Figure{What: "replies Done with a result of 100 B, per second", Bar: 100_000, From: harness.Median(harness.Rate, "replies")})
	declareExpiry(r)
	return nil
}
