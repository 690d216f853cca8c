//go:build real && linux

package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// smallDisk mounts one in memory, of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount a tmpfs: %v", err)
		}
		t.Skipf("SKIPPED: it takes root on Linux to mount a disk that can be filled: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillUp takes all that is free on the disk of dir, and returns the file that does.
func fillUp(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want the disk to be full", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// A disk fills up under load. Messages wait, handlers that ran are recorded, and
// all goes on by itself when there is room again.
func TestRealDiskFull(t *testing.T) {
	disk := smallDisk(t, 48<<20)
	dir := filepath.Join(disk, "store")
	s, err := Open(dir, &Options{RollBytes: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	d, err := dedup.New(s, "test", dedup.PayloadHash(), &dedup.Options{Concurrency: 8})
	if err != nil {
		t.Fatal(err)
	}
	const callers, waiting = 32, 2
	var done sync.Map // payload -> true, once it was settled
	var settled, refused atomic.Int64
	var hold atomic.Bool
	held := make(chan struct{}, waiting)
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	for c := range callers {
		load.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				m := &dedup.Message{Topic: "orders", Value: fmt.Appendf(nil, "%d/%d", c, i)}
				for ctx.Err() == nil {
					r := d.Do(ctx, m, func(context.Context, *dedup.Message) ([]byte, error) {
						if hold.Load() {
							select {
							case held <- struct{}{}:
								<-release
							default:
							}
						}
						return make([]byte, 4<<10), nil
					})
					if r.Settled() {
						done.Store(string(m.Value), true)
						settled.Add(1)
						break
					}
					if r.Halt || r.Outcome != dedup.Unavailable && ctx.Err() == nil {
						t.Errorf("%s: got %v, halt %v, %v, want it to wait", m.Value, r.Outcome, r.Halt, r.Err)
						return
					}
					if errors.Is(r.Err, ErrFull) {
						refused.Add(1)
					}
				}
			}
		})
	}
	eventually(t, "some messages to be settled", func() bool { return settled.Load() > 200 })
	hold.Store(true)
	eventually(t, "handlers to run", func() bool { return len(held) > 0 })
	filler := fillUp(t, disk)
	eventually(t, "claims to be refused", func() bool { return refused.Load() > 10 })
	hold.Store(false)
	running := settled.Load() + int64(len(held))
	close(release)
	eventually(t, "what runs to be recorded on the full disk", func() bool { return settled.Load() >= running })
	if _, err := s.Stats(t.Context()); err != nil {
		t.Errorf("Stats on the full disk: %v", err)
	}
	at := settled.Load()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "work to go on when there is room", func() bool { return settled.Load() > at+100 })
	// And again, until the store has filled the disk by itself.
	before := refused.Load()
	eventually(t, "the store to fill the disk", func() bool { return refused.Load() > before+10 })
	cancel()
	load.Wait()
	if err := errors.Join(d.Shutdown(t.Context()), s.Close()); err != nil {
		t.Fatal(err)
	}
	// It opens on the full disk, with all that was acknowledged, and answers.
	filler = fillUp(t, disk)
	if s, err = Open(dir, &Options{RollBytes: 2 << 20}); err != nil {
		t.Fatalf("Open on the full disk: %v", err)
	}
	defer closeStore(t, s)
	if d, err = dedup.New(s, "test", dedup.PayloadHash(), nil); err != nil {
		t.Fatal(err)
	}
	n := 0
	done.Range(func(payload, _ any) bool {
		n++
		m := &dedup.Message{Topic: "orders", Value: []byte(payload.(string))}
		r := d.Do(t.Context(), m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, errors.New("it ran again") })
		if r.Outcome != dedup.Duplicate || len(r.Value) != 4<<10 {
			t.Errorf("%s: got %v, %d bytes, %v, want a duplicate", payload, r.Outcome, len(r.Value), r.Err)
		}
		return !t.Failed()
	})
	if _, err := s.Apply(t.Context(), []driver.Op{complete1(key("settled", 0), 1, day)}); err != nil {
		t.Errorf("a complete on the full disk after a restart: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages settled, %d claims refused", n, refused.Load())
	if err := d.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	const patience = 4 * time.Minute // a busy machine is no defect
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}
