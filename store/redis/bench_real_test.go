//go:build real

package redisstore_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// BenchmarkRealApply claims and completes new keys, 256 of them in each Apply:
// completes of one batch travel with the claims of the next.
func BenchmarkRealApply(b *testing.B) {
	b.Run("script per batch", func(b *testing.B) { benchmarkApply(b, realStore(b, realClient(b), nil)) })
	b.Run("script per key", func(b *testing.B) {
		s := realStore(b, realClient(b), nil)
		s.SplitScripts()
		benchmarkApply(b, s)
	})
}

func benchmarkApply(b *testing.B, s *redisstore.Store) {
	const size = 256
	position := driver.Position{Source: "orders", Partition: 3}
	ops := make([]driver.Op, 0, 2*size)
	next := uint64(time.Now().UnixNano())
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		for range size {
			next++
			op := driver.Op{Kind: driver.OpClaim, Nonce: next, Lease: 30 * time.Second, TTL: 24 * time.Hour, Fingerprint: driver.Fingerprint{1}, Position: position}
			op.Position.Offset = int64(len(ops)) + 1<<30
			binary.LittleEndian.PutUint64(op.ID[:], next*0x9E3779B97F4A7C15)
			binary.LittleEndian.PutUint64(op.ID[8:], next*0xBF58476D1CE4E5B9)
			ops = append(ops, op)
		}
		replies, err := s.Apply(ctx, ops)
		if err != nil {
			b.Fatal(err)
		}
		done := ops
		ops = ops[:0]
		for i, r := range replies {
			if r.Err != nil || r.Status != driver.StatusGranted && r.Status != driver.StatusOK {
				b.Fatalf("%v: got %v, %v", done[i].Kind, r.Status, r.Err)
			}
			if r.Status == driver.StatusGranted {
				op := done[i]
				ops = append(ops, driver.Op{Kind: driver.OpComplete, ID: op.ID, Token: r.Record.Token, TTL: op.TTL, Fingerprint: op.Fingerprint, Position: op.Position})
			}
		}
	}
	b.ReportMetric(float64(b.N)*size/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/size, "us/msg")
}
