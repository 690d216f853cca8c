//go:build unix

package boltstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// messages makes n messages as a broker would deliver them: a UUID in a header,
// 100 bytes of payload, and one in five is one of the last 100,000 again.
func messages(n int) []*dedup.Message {
	rng := rand.New(rand.NewPCG(1, 2))
	slab := make([]dedup.Message, n)
	all := make([]*dedup.Message, n)
	published := time.Now()
	for i := range slab {
		all[i] = &slab[i]
		m := &slab[i]
		if i > 0 && rng.IntN(5) == 0 {
			old := &slab[i-1-rng.IntN(min(i, 100_000))]
			*m = *old
			continue
		}
		key := fmt.Appendf(nil, "%08x-%04x-%04x-%04x-%012x", rng.Uint32(), rng.Uint32()>>16, rng.Uint32()>>16, rng.Uint32()>>16, rng.Uint64()>>16)
		m.Topic = "orders"
		m.Value = make([]byte, 100)
		binary.LittleEndian.PutUint64(m.Value, rng.Uint64())
		m.Headers = dedup.Headers{{Key: dedup.HeaderIdempotencyKey, Value: key}}
		m.Position = driver.Position{Source: "orders", Partition: int32(i & 7), Offset: int64(i)}
		m.Published = published
	}
	return all
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchDedup reports, for a message of work: CPU, transactions, bytes and memory.
func benchDedup(b *testing.B, work func(d *dedup.Deduplicator, ms []*dedup.Message)) {
	s, err := Open(b.TempDir(), nil)
	if err != nil {
		b.Fatal(err)
	}
	var commits atomic.Int64
	s.commit = func(tx *bolt.Tx) error {
		commits.Add(1)
		return tx.Commit()
	}
	d, err := dedup.New(s, "bench", dedup.HeaderKey(), nil)
	if err != nil {
		b.Fatal(err)
	}
	ms := messages(b.N)
	b.ReportAllocs()
	b.ResetTimer()
	cpu := cpuTime()
	work(d, ms)
	cpu = cpuTime() - cpu
	b.StopTimer()
	st, err := s.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	n := float64(b.N)
	b.ReportMetric(float64(cpu.Nanoseconds())/n, "cpu-ns/op")
	b.ReportMetric(float64(commits.Load())*2*1000/n, "fsyncs/1000op")
	b.ReportMetric(float64(st.Bytes)/n, "file-B/op")
	if err := d.Shutdown(b.Context()); err != nil {
		b.Error(err)
	}
	if err := s.Close(); err != nil {
		b.Error(err)
	}
}

// BenchmarkDoBatch has two batches of 256 under way.
func BenchmarkDoBatch(b *testing.B) {
	benchDedup(b, func(d *dedup.Deduplicator, ms []*dedup.Message) {
		var mu sync.Mutex
		next := func() (batch []*dedup.Message) {
			mu.Lock()
			defer mu.Unlock()
			n := min(256, len(ms))
			batch, ms = ms[:n], ms[n:]
			return batch
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for batch := next(); len(batch) > 0; batch = next() {
					for _, r := range d.DoBatch(b.Context(), batch, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
						return make([]dedup.Answer, len(ms))
					}) {
						if !r.Settled() {
							b.Errorf("not settled: %+v", r)
							return
						}
					}
				}
			})
		}
		wg.Wait()
	})
}

// BenchmarkDo has 256 callers.
func BenchmarkDo(b *testing.B) {
	benchDedup(b, func(d *dedup.Deduplicator, ms []*dedup.Message) {
		var at atomic.Int64
		var wg sync.WaitGroup
		for range 256 {
			wg.Go(func() {
				for i := at.Add(1) - 1; i < int64(len(ms)); i = at.Add(1) - 1 {
					r := d.Do(b.Context(), ms[i], func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
					if !r.Settled() {
						b.Errorf("not settled: %+v", r)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}
