package boltbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup/driver"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
)

// Growth follows one store while it grows.
var Growth = harness.Suite{
	Name:     "growth",
	What:     "one store of ours that grows to 10M keys: bytes, CPU and memory on the way, and its reopening",
	Messages: 50_000, // in a window
	Declare:  declareGrowth,
}

const (
	windows   = 5 // at each size
	doublings = 3 // of the index, over which its memory is averaged
	samples   = 60
	fillStep  = 1024 // records in an Apply that lets it grow
)

func declareGrowth(_ context.Context, r *harness.Run) error {
	var sizes [3]size // 100k, 1M and 10M; fewer in a smaller run
	for i, n := range []int{100_000, 1_000_000, 10_000_000} {
		n = r.Scaled(n)
		sizes[i] = size{n, harness.Brief(float64(n)) + " keys"}
	}
	small, middle, large := sizes[0], sizes[1], sizes[2]

	r.Measure("growth to "+large.name, func(ctx context.Context, m *harness.Measure) (err error) {
		g := &growth{m: m, stream: work.New(2), window: r.Messages}
		g.heap = heapInUse()
		if g.store, err = open(m.Dir); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.store.Close()) }()
		g.sampleFrom = large.keys >> doublings
		g.sampleEvery = (large.keys - g.sampleFrom) / samples
		for _, size := range sizes {
			if err := g.grow(ctx, size.keys); err != nil {
				return err
			}
			for range windows {
				if err := g.measure(ctx, size.name); err != nil {
					return err
				}
			}
			if size == middle {
				if err := g.reopen(); err != nil {
					return err
				}
			}
		}
		m.Set("CPU ms of the longest Apply", float64(g.longest.Microseconds())/1e3)
		return nil
	})

	for _, size := range sizes {
		r.Figure(harness.Figure{
			What: "bytes to disk per message, at " + size.name, Unit: "B", AtMost: true, Bar: 300, Goal: 260,
			From: harness.Measured("disk B at " + size.name),
		})
	}
	r.Figure(harness.Figure{
		What: "the same, at " + large.name + " / at " + small.name, Unit: "x", AtMost: true, Bar: 1.1,
		From: harness.Quotient("disk B at "+large.name, "disk B at "+small.name),
	})
	r.Figure(harness.Figure{
		What: "CPU per message, at " + large.name + " / at " + small.name, Unit: "x", AtMost: true, Bar: 1.25,
		From: harness.Quotient("CPU µs at "+large.name, "CPU µs at "+small.name),
	})
	r.Figure(harness.Figure{
		What: "index memory per key, averaged over three doublings", Unit: "B", AtMost: true, Bar: 32,
		From: harness.Measured("index B per key"),
	})
	r.Figure(harness.Figure{
		What: "most CPU time of one Apply of 1,024 records while it grows", Unit: "ms", AtMost: true, Bar: 20,
		From: harness.Measured("CPU ms of the longest Apply"),
	})
	r.Figure(harness.Figure{
		What: "reopening after a crash, per record scanned, at " + middle.name, Unit: "µs", AtMost: true, Bar: 1, Goal: 0.2,
		From: harness.Measured("reopening, µs per record"),
	})
	return nil
}

type size struct {
	keys int
	name string
}

// growth is a store while it grows.
type growth struct {
	m       *harness.Measure
	store   *boltstore.Store
	stream  *work.Stream
	window  int
	keys    int    // in the store
	records int    // in its log
	heap    uint64 // in use before the store was opened

	sampleFrom, sampleEvery int
	longest                 time.Duration // CPU time of an Apply
}

// grow records new keys until the store has n. Another goroutine makes the
// operations, so that Apply has a core of its own.
func (g *growth) grow(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	made := make(chan []driver.Op, 4)
	go func() {
		defer close(made)
		for left := n - g.keys; left > 0 && ctx.Err() == nil; left -= fillStep {
			select {
			case made <- g.stream.Fresh(min(left, fillStep)).Completes(nil):
			case <-ctx.Done():
			}
		}
	}()
	defer func() {
		cancel()
		for range made { // until its maker has ended
		}
	}()
	runtime.LockOSThread() // the CPU time of a thread
	defer runtime.UnlockOSThread()
	sampled := g.keys
	for ops := range made {
		before := threadCPU()
		replies, err := g.store.Apply(ctx, ops)
		g.longest = max(g.longest, threadCPU()-before)
		if err == nil {
			err = work.CheckCompleted(replies)
		}
		if err != nil {
			return err
		}
		g.keys += len(ops)
		g.records += len(ops)
		if g.keys >= g.sampleFrom && g.keys-sampled >= g.sampleEvery {
			sampled = g.keys
			g.m.Set("index B per key", float64(heapInUse()-g.heap)/float64(g.keys))
		}
	}
	return ctx.Err()
}

// measure processes one window of messages.
func (g *growth) measure(ctx context.Context, size string) error {
	d, err := work.NewDeduplicator(g.store)
	if err != nil {
		return err
	}
	b := g.stream.Next(g.window)
	runtime.GC()
	device, cpu := harness.DeviceBytesWritten(g.m.Dir), harness.OwnCPU()
	err = b.DoBatch(ctx, d)
	cpu = harness.OwnCPU() - cpu
	device = harness.DeviceBytesWritten(g.m.Dir) - device
	if err := errors.Join(err, b.Check(), d.Shutdown(ctx)); err != nil {
		return err
	}
	g.keys += b.Fresh
	g.records += 2 * b.Fresh // a claim and a result
	g.m.Set("disk B at "+size, device/float64(g.window))
	g.m.Set("CPU µs at "+size, float64(cpu.Nanoseconds())/1e3/float64(g.window))
	return nil
}

// reopen opens a copy of the files of the running store. A crash leaves files in
// the same state.
func (g *growth) reopen() error {
	dir := filepath.Join(g.m.Dir, "crashed")
	if err := os.CopyFS(filepath.Join(dir, "store"), os.DirFS(filepath.Join(g.m.Dir, "store"))); err != nil {
		return err
	}
	start := time.Now()
	s, err := open(dir)
	if err != nil {
		return err
	}
	took := time.Since(start)
	g.m.Set("reopening, µs per record", float64(took.Nanoseconds())/1e3/float64(g.records))
	st, err := s.Stats(context.Background())
	if err == nil && st.Records != int64(g.keys) {
		err = fmt.Errorf("reopened with %d records, want %d", st.Records, g.keys)
	}
	return errors.Join(err, s.Close(), os.RemoveAll(dir))
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func threadCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
