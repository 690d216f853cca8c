package boltstore

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

func TestDefaults(t *testing.T) {
	given := Options{}
	o, err := given.filled()
	if err != nil {
		t.Fatal(err)
	}
	if o.RollBytes != 96<<20 || o.RollAge != time.Hour || o.MaxBytes != 0 || o.Logger == nil || o.Now == nil || !o.VouchFrom.IsZero() {
		t.Errorf("got %+v, want 96 MiB, 1h, a logger, a clock, no VouchFrom, no MaxBytes", o)
	}
	if o, err := (&Options{MaxBytes: 512 << 20}).filled(); err != nil || o.RollBytes != 64<<20 {
		t.Errorf("MaxBytes 512 MiB: got RollBytes %d, %v, want 64 MiB", o.RollBytes, err)
	}
	if given.RollBytes != 0 || given.Logger != nil || given.Now != nil {
		t.Errorf("the caller's options were written to: %+v", given)
	}
	for _, bad := range []Options{{RollBytes: 1}, {MaxBytes: 1}, {MaxBytes: -1}, {MaxBytes: 1 << 30, RollBytes: 257 << 20}, {RollBytes: -1}, {RollAge: -1}, {VouchFrom: time.Now().Add(time.Hour)}} {
		dir := filepath.Join(t.TempDir(), "store")
		if _, err := Open(dir, &bad); err == nil {
			t.Errorf("%+v: got no error", bad)
		} else {
			oneLine(t, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: the directory was made", bad)
		}
	}
}

func oneLine(t *testing.T, err error, names ...string) {
	t.Helper()
	for _, name := range names {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("got error %q, want it to name %q", err, name)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("got error %q, want one line", err)
	}
}

// snapshot is what a directory holds, to see that nothing was written.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x\n", e.Name(), sha256.Sum256(data))
	}
	return b.String()
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "store")
	s, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: got mode %v, %v, want 0700", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("got %v, %v, want a lock and a file", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, %v, want 0600", e.Name(), info.Mode(), err)
		}
	}
}

func TestPathsThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(dir, "locked")
	if err := os.MkdirAll(filepath.Join(locked, lockName), 0o700); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full")
	if err := errors.Join(os.Mkdir(full, 0o700), os.Symlink("/dev/full", filepath.Join(full, lockName))); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a file":         file,
		"below a file":   filepath.Join(file, "store"),
		"no right there": "/proc/self/store",
		"no lock there":  locked,
		"a full disk":    full,
	} {
		_, err := Open(path, nil)
		if err == nil {
			t.Fatalf("%s: got no error", name)
		}
		oneLine(t, err, path, "choose a")
	}
	for name, fn := range map[string]func() error{
		"Open":   func() error { _, err := Open("", nil); return err },
		"Repair": func() error { _, err := Repair("", nil); return err },
	} {
		if err := fn(); err == nil {
			t.Errorf("%s without a directory: got no error", name)
		} else {
			oneLine(t, err, "no directory was given")
		}
	}
	if _, err := Repair(file, nil); err == nil {
		t.Error("Repair of a file: got no error")
	}
	if _, err := Repair(t.TempDir(), nil); err == nil {
		t.Error("Repair of an empty directory: got no error")
	}
}

func TestInUse(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 10, day)
	before := snapshot(t, b.dir)
	start := time.Now()
	_, err := Open(b.dir, nil)
	if !errors.Is(err, ErrInUse) {
		t.Fatalf("Open of an open store: got %v, want ErrInUse", err)
	}
	oneLine(t, err, b.dir, fmt.Sprint(os.Getpid()))
	if _, err := Repair(b.dir, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("Repair of an open store: got %v, want ErrInUse", err)
	}
	// Another process too.
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), workerDir+"="+b.dir, workerRun+"=0")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), ErrInUse.Error()) {
		t.Errorf("another process: got %v, %q, want it to fail with %q", err, out, ErrInUse)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("three refusals took %v", took)
	}
	if after := snapshot(t, b.dir); after != before {
		t.Errorf("something was written:\n%s\nbefore:\n%s", after, before)
	}
	b.want(claim1(key("k", 0), 1), driver.StatusDone)
}

func TestVouch(t *testing.T) {
	clock := &testClock{now: base}
	dir := t.TempDir()
	vouch := func(o *Options) driver.Vouch {
		t.Helper()
		o.Now = clock.Now
		s, err := Open(dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer closeStore(t, s)
		v, err := s.Vouch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	created := vouch(&Options{VouchFrom: base.Add(-day)})
	if !created.Since.Equal(base.Add(-day)) || created.Shared || len(created.ID) != 32 {
		t.Errorf("created: got %+v, want since a day ago, not shared, an id", created)
	}
	clock.advance(time.Hour)
	if got := vouch(&Options{VouchFrom: base}); got != created {
		t.Errorf("opened again with another VouchFrom: got %+v, want %+v", got, created)
	}
	dir = t.TempDir()
	if other := vouch(&Options{}); !other.Since.Equal(clock.Now()) || other.ID == created.ID {
		t.Errorf("another store: got %+v, want since now, another id than %s", other, created.ID)
	}
}

// The word on a longer TTL is on disk with the first record that was made with
// it; the first TTL of all raises nothing.
func TestLongerTTL(t *testing.T) {
	b := newBench(t, Options{})
	closeStore(t, b.Store)
	b.dir = t.TempDir()
	created := b.clock.Now().Add(-30 * day)
	b.opts.VouchFrom = created
	b.open()
	since := func(when string, want time.Time) {
		t.Helper()
		if v, err := b.Vouch(t.Context()); err != nil || !v.Since.Equal(want) {
			t.Errorf("%s: got since %v, %v, want %v", when, v.Since, err, want)
		}
	}
	b.done(key("first", 0), day)
	since("the first TTL", created)
	b.crash()
	b.want(claim1(key("first", 1), 1), driver.StatusGranted)
	since("the same after a crash", created)

	b.clock.advance(10 * day)
	commits := 0
	b.commit = func(tx *bolt.Tx) error { commits++; return tx.Commit() }
	changed := b.clock.Now()
	b.want(complete1(key("longer", 0), 1, 3*day), driver.StatusOK)
	if commits != 1 {
		t.Errorf("a longer TTL and its record: got %d transactions, want 1", commits)
	}
	since("a longer TTL", changed.Add(-day))
	r := b.want(claim1(key("held", 0), 1), driver.StatusGranted)
	long := extend1(key("held", 0), r.Token)
	long.TTL = 9 * day
	b.want(long, driver.StatusOK)
	b.apply(long, claim1(key("beside", 0), 1))
	since("extends, alone and beside a claim", changed.Add(-day))
	b.crash()
	since("after a crash", changed.Add(-day))
	b.clock.advance(day / 2)
	since("half a day later", changed.Add(-day/2))
	b.clock.advance(day)
	since("when what lived for a day is forgotten", changed)
	b.want(complete1(key("longer", 1), 1, 3*day), driver.StatusOK)
	since("the same TTL again", changed)

	b.clock.advance(20 * day)
	for range 3 {
		b.nextFile() // the older ones are dropped, with all that was said in them
		b.tend()
		b.clock.advance(time.Hour)
	}
	if b.numbers()[0] == 1 {
		t.Fatalf("files: got %v, want the first dropped", b.numbers())
	}
	b.crash()
	b.want(complete1(key("longer", 2), 1, 3*day), driver.StatusOK)
	since("when no record and no old file is left", changed)
	b.want(complete1(key("longest", 0), 1, 4*day), driver.StatusOK)
	since("a longer TTL still", b.clock.Now().Add(-3*day))

	b.clock.advance(20 * day)
	changed = b.clock.Now()
	b.want(driver.Op{Kind: driver.OpRelease, ID: key("none", 0), Token: 1, TTL: 5 * day}, driver.StatusLost)
	b.crash()
	since("after a crash, by an op that changed no record", changed.Add(-4*day))
}

// rewrite changes an entry of a file, checksum and all.
func rewrite(t *testing.T, path string, seq uint64, change func(value []byte) []byte) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		k := keyOf(seq)
		b := tx.Bucket(bucketName)
		unpack(t, b)
		value := change(append([]byte{}, b.Get(k[:])...))
		if value == nil {
			return b.Delete(k[:])
		}
		return b.Put(k[:], value)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// unpack gives each entry of a log a value of its own.
func unpack(t *testing.T, b *bolt.Bucket) {
	t.Helper()
	var packs []value
	c := b.Cursor()
	for key, v := c.First(); key != nil; key, v = c.Next() {
		if packed(v) {
			packs = append(packs, value{seqOf(key), slices.Clone(v)})
		}
	}
	for _, p := range packs {
		for _, e := range entries(p.bytes) {
			key := keyOf(p.seq)
			if err := b.Put(key[:], e); err != nil {
				t.Fatal(err)
			}
			p.seq++
		}
	}
}

func TestNewerFormat(t *testing.T) {
	newer := func(seq uint64) func([]byte) []byte {
		return func(value []byte) []byte {
			value[0] = newest + 1
			return seal(value[:len(value)-crcLen], 0, seq)
		}
	}
	for _, seq := range []uint64{1, 4} {
		b := newBench(t, Options{})
		b.fill("k", 10, day)
		dir := b.copy()
		path := filepath.Join(dir, fileName(1))
		rewrite(t, path, seq, newer(seq))
		before := snapshot(t, dir)
		_, err := Open(dir, &b.opts)
		if !errors.Is(err, ErrFormat) {
			t.Fatalf("entry %d of version %d: got %v, want ErrFormat", seq, newest+1, err)
		}
		oneLine(t, err, path, fmt.Sprint(newest+1), "newer program")
		if _, err := Repair(dir, &b.opts); !errors.Is(err, ErrFormat) {
			t.Errorf("Repair: got %v, want ErrFormat: nothing is damaged", err)
		}
		if after := snapshot(t, dir); after != before {
			t.Errorf("something was written:\n%s\nbefore:\n%s", after, before)
		}
	}
}

func TestDamagedStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		file   uint64
	}{
		{"a record", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, fileName(2)), 400, func(v []byte) []byte { v[20] ^= 1; return v })
		}, 2},
		{"a record of an unknown kind", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, fileName(2)), 400, func(v []byte) []byte { v[1] = 99; return seal(v[:len(v)-crcLen], 0, 400) })
		}, 2},
		{"a record is missing", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, fileName(2)), 400, func([]byte) []byte { return nil })
		}, 2},
		{"the last record is missing", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, fileName(3)), 907, func([]byte) []byte { return nil })
		}, 3},
		{"the first entry", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, fileName(2)), 304, func(v []byte) []byte { v[5] ^= 1; return v })
		}, 2},
		{"an empty file", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, fileName(3)), 0) }, 3},
		{"half a file", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, fileName(3)), 20<<10) }, 3},
		{"no bbolt file", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, fileName(1)), 0, 32<<10) }, 1},
		{"a meta page", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, fileName(3)), 0, 4<<10) }, 3},
		{"the other meta page", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, fileName(3)), 4<<10, 4<<10) }, 3},
		{"pages", func(t *testing.T, dir string) { overwrite(t, filepath.Join(dir, fileName(1)), 16<<10, 16<<10) }, 1},
		{"a file is missing", func(t *testing.T, dir string) { remove(t, filepath.Join(dir, fileName(2))) }, 3},
		{"a file under another's name", func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, fileName(3)), filepath.Join(dir, fileName(2))); err != nil {
				t.Fatal(err)
			}
		}, 2},
		{"a file of another store", func(t *testing.T, dir string) {
			other := newBench(t, Options{})
			other.fill("other", 301, day)
			other.nextFile()
			copyFile(t, filepath.Join(dir, fileName(2)), filepath.Join(other.copy(), fileName(2)))
			remove(t, filepath.Join(dir, fileName(3)))
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := threeFiles(t)
			dir := b.copy()
			tt.damage(t, dir)
			before := snapshot(t, dir)
			_, err := Open(dir, &b.opts)
			var damage *DamageError
			if !errors.As(err, &damage) || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("Open: got %v, want a DamageError", err)
			}
			path := filepath.Join(dir, fileName(tt.file))
			if damage.File != path {
				t.Errorf("got %v, want it to name %s", damage, path)
			}
			oneLine(t, err, path, "from a backup", "boltstore.Repair", "empty one")
			if strings.Contains(err.Error(), "runtime error") {
				t.Errorf("got error %q, want none of the runtime's words", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("something was written")
			}
		})
	}
}

// threeFiles is a store of 900 records in three files.
func threeFiles(t *testing.T) *bench {
	b := newBench(t, Options{RollBytes: 1 << 20})
	for i := range 3 {
		if i > 0 {
			b.nextFile()
		}
		b.fill(fmt.Sprint("file ", i+1), 300, day)
	}
	return b
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, offset int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte(strings.Repeat("x", n)), offset)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}
