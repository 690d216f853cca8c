package boltstore

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// BenchmarkApply claims 256 keys and completes those of the batch before, in one
// batch: what the store does for 256 messages.
func BenchmarkApply(b *testing.B) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	const batch = 256
	rng := rand.New(rand.NewPCG(1, 2))
	var ops []driver.Op
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += batch {
		for range batch {
			var id driver.ID
			binary.LittleEndian.PutUint64(id[:], rng.Uint64())
			binary.LittleEndian.PutUint64(id[8:], rng.Uint64())
			op := claim1(id, rng.Uint64())
			op.Position.Offset, op.Fingerprint = int64(n), driver.Fingerprint(id[:8])
			ops = append(ops, op)
		}
		replies, err := s.Apply(b.Context(), ops)
		if err != nil {
			b.Fatal(err)
		}
		claims := replies[len(ops)-batch:]
		next := ops[len(ops)-batch:]
		for i := range claims {
			if claims[i].Status != driver.StatusGranted {
				b.Fatalf("claim: got %+v", claims[i])
			}
			next[i].Kind, next[i].Token = driver.OpComplete, claims[i].Record.Token
		}
		ops = append(ops[:0], next...)
	}
	b.StopTimer()
	st, err := s.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(st.Bytes)/float64(b.N), "file-B/op")
}

// BenchmarkOpen opens a store of 100,000 records.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	s, err := Open(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	const records = 100_000
	ops := make([]driver.Op, driver.MaxBatch)
	for n := 0; n < records; n += len(ops) {
		for i := range ops {
			ops[i] = complete1(key("k", n+i), 1, day)
		}
		if _, err := s.Apply(b.Context(), ops); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		if s, err = Open(dir, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/records, "ns/record")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
