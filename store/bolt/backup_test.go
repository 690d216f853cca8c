package boltstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// A copy that is made under load opens, has all that was answered before it was
// begun, and vouches from when it is opened.
func TestBackup(t *testing.T) {
	b := newBench(t, Options{RollBytes: 64 << 10})
	forgotten, held, expired := key("forgotten", 0), key("held", 0), key("expired", 0)
	b.fill("before", 2000, 30*day)
	b.done(forgotten, day)
	b.done(expired, time.Hour)
	b.clock.advance(2 * time.Hour)
	claim := b.want(claim1(held, 1), driver.StatusGranted)
	if err := b.Forget(t.Context(), []driver.ID{forgotten}); err != nil {
		t.Fatal(err)
	}
	original, err := b.Vouch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var load sync.WaitGroup
	var high atomic.Uint64
	for w := range 2 {
		load.Go(func() {
			for i := 0; !stop.Load(); i++ {
				replies, err := b.Apply(context.Background(), []driver.Op{claim1(key(fmt.Sprint("load ", w), i), 1), complete1(key(fmt.Sprint("load ", w), i), 1, day)})
				if err != nil {
					t.Errorf("Apply: %v", err)
					return
				}
				if i%10 == 0 {
					b.clock.advance(time.Millisecond)
				}
				high.Store(max(high.Load(), uint64(replies[0].Record.Token)))
			}
		})
	}
	dir := filepath.Join(t.TempDir(), "deep", "copy")
	err = b.Backup(t.Context(), dir)
	stop.Store(true)
	load.Wait()
	if err != nil {
		t.Fatal(err)
	}
	after := key("after", 0)
	b.done(after, day)

	if report, err := Verify(dir, &b.opts); err != nil || len(report.Lost) > 0 || report.Kept < 2001 || !report.Since.Equal(b.clock.Now()) {
		t.Errorf("Verify: got %+v, %v, want more than 2000 records, since now", report, err)
	}
	b.clock.advance(time.Hour) // the original went on until now
	opened := b.clock.Now()
	for range 2 {
		s, err := Open(dir, &b.opts)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Vouch(t.Context()); err != nil || v.ID == original.ID || !v.Since.Equal(opened) {
			t.Errorf("the copy vouches %+v, %v, want another id than %s, since it was first opened at %v", v, err, original.ID, opened)
		}
		c := &bench{Store: s, t: t, dir: dir, clock: b.clock}
		for i := range 2000 {
			if r := c.lookup(key("before", i), driver.StateDone); r.First != position || string(r.Result) != "result" {
				t.Fatalf("got %+v", r)
			}
		}
		c.lookup(forgotten, driver.StateFree)
		c.lookup(expired, driver.StateFree)
		c.lookup(after, driver.StateFree)
		if r := c.lookup(held, driver.StateClaimed); r.Token != claim.Token {
			t.Errorf("got %+v, want the claim with token %d", r, claim.Token)
		}
		closeStore(t, s)
		b.clock.advance(time.Hour)
	}
	s, err := Open(dir, &b.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	c := &bench{Store: s, t: t, dir: dir, clock: b.clock}
	if r := c.want(claim1(held, 2), driver.StatusGranted); !r.Ambiguous || uint64(r.Token) <= high.Load() {
		t.Errorf("a claim of a dead process: got %+v, want Ambiguous, a token above %d", r, high.Load())
	}
	// A TTL that the original knew raises nothing.
	c.want(complete1(key("ttl", 0), 1, 30*day), driver.StatusOK)
	if v, err := s.Vouch(t.Context()); err != nil || !v.Since.Equal(opened) {
		t.Errorf("after a TTL that the original had seen: got %+v, %v, want since %v", v, err, opened)
	}
}

func TestBackupThatFails(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 300, day)
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	left := filepath.Join(dir, "left")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(left+tmpSuffix, 0o700)); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"nowhere": "", "a file": file, "not empty": dir, "left over": left, "no right there": "/proc/self/copy"} {
		if err := b.Backup(t.Context(), to); err == nil {
			t.Errorf("%s: got no error", name)
		} else {
			oneLine(t, err, to)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Backup(ended, filepath.Join(dir, "ended")); !errors.Is(err, context.Canceled) {
		t.Errorf("under an ended context: got %v", err)
	}
	overwrite(t, filepath.Join(b.dir, fileName(1)), 20<<10, 8)
	to := filepath.Join(dir, "damaged")
	if err := b.Backup(t.Context(), to); !errors.Is(err, ErrCorrupt) {
		t.Errorf("of a damaged store: got %v, want ErrCorrupt", err)
	} else {
		oneLine(t, err, to, fileName(1))
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("got %v, %v, want nothing left of what failed", entries, err)
	}
	if !strings.HasSuffix(entries[1].Name(), tmpSuffix) {
		t.Errorf("got %v, want what was there before", entries)
	}
}

// Who looks at records takes their time, and nobody waits for them: not for a
// lock, and not for pages or files that they still read.
func TestRecordsStallNobody(t *testing.T) {
	b := newBench(t, Options{RollBytes: 64 << 10})
	b.fill("k", 3000, time.Hour)
	seen := 0
	for _, err := range b.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen%100 != 0 {
			continue
		}
		b.done(key("meanwhile", seen), day)
		if _, err := b.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
		if seen == 1500 {
			b.clock.advance(2 * time.Hour)
			b.tend()
			if b.numbers()[0] == 1 {
				t.Errorf("files: got %v, want the first dropped meanwhile", b.numbers())
			}
		}
	}
	if seen < 1500 {
		t.Errorf("got %d records", seen)
	}
}

// A copy goes by the store's time, not by a wall clock that was ahead when it was made.
func TestBackupWhileTheWallClockIsAhead(t *testing.T) {
	c := &jumpClock{true: time.Now()}
	c.reboot()
	b := &bench{t: t, dir: t.TempDir(), hash: hashID, opts: Options{Now: c.Now, uptime: c.uptime}}
	b.open()
	defer func() { closeStore(t, b.Store) }()
	k := key("k", 0)
	b.done(k, 30*day)
	c.jump(300 * day)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := b.Backup(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	c.jump(-300 * day)
	copied := &bench{t: t, dir: dir, hash: hashID, opts: b.opts}
	copied.open()
	defer func() { closeStore(t, copied.Store) }()
	copied.lookup(k, driver.StateDone)
}
