//go:build unix

package boltstore

import (
	"os"
	"syscall"
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// At MaxBytes claims are refused, nothing is evicted, and what runs is settled.
func TestMaxBytes(t *testing.T) {
	b := newBench(t, Options{MaxBytes: minMaxBytes})
	closeStore(t, b.Store)
	b.dir = t.TempDir()
	b.open()
	claims := b.fillDisk("k")
	st, err := b.Stats(t.Context())
	records := st.Records
	if err != nil || st.Limit != minMaxBytes-2*minReserve || st.Bytes < st.Limit-1<<20 || st.Bytes > st.Limit {
		t.Errorf("Stats: got %d bytes, limit %d, %v, want the limit reached", st.Bytes, st.Limit, err)
	}
	full := b.full(claim1(key("new", 0), 1))
	if full.MaxBytes != minMaxBytes || full.Bytes < st.Bytes {
		t.Errorf("got %+v, want the quota and the size", full)
	}
	oneLine(t, full, b.dir, "64.0 MiB", "MaxBytes", "TTL")
	for i := 0; i < 2*driver.MaxBatch; i += driver.MaxBatch {
		ops := make([]driver.Op, driver.MaxBatch)
		for j := range ops {
			ops[j] = complete1(key("k", i+j), claims[i+j].Token, day)
		}
		b.apply(ops...)
	}
	const oneBatch = 128 << 10
	if used := diskUse(t, b.dir); used > minMaxBytes+oneBatch {
		t.Errorf("the directory takes %d bytes, want at most %d and one batch", used, int64(minMaxBytes))
	}
	b.reopen()
	b.refused(claim1(key("new", 0), 1))
	st, err = b.Stats(t.Context())
	if err != nil || st.Records != records {
		t.Errorf("got %d records, %v, want %d", st.Records, err, records)
	}
	b.clock.advance(2 * day)
	b.tend()
	b.want(claim1(key("new", 0), 1), driver.StatusGranted)
}

// diskUse returns how much room the files of dir take.
func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			n += s.Blocks * 512
		}
	}
	return n
}
