package boltstore

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// testDisk is what the store is told about its disk.
type testDisk struct {
	b     *bench
	room  int64            // bytes that are free or the store's
	owned map[string]int64 // by the name that the file was made with
}

// disk puts the store on one that has so many bytes left.
func (b *bench) disk(free int64) *testDisk {
	d := &testDisk{b: b, owned: make(map[string]int64)}
	for _, f := range b.files {
		d.owned[f.handle.Name()] = max(f.allocated.Load(), f.size.Load())
	}
	d.set(free)
	b.space.free = func(string) (int64, error) { return d.free(), nil }
	b.space.allocate = func(f *os.File, offset, n int64) error {
		more := max(offset+n-d.owned[f.Name()], 0)
		if more > d.free() {
			return os.NewSyscallError("fallocate", syscall.ENOSPC)
		}
		d.owned[f.Name()] += more
		return nil
	}
	return d
}

// set makes so many bytes free.
func (d *testDisk) set(free int64) { d.room += free - d.free() }

func (d *testDisk) free() int64 {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for _, f := range d.b.files {
		if f.allocated.Load() == 0 { // it gave back what it does not use
			d.owned[f.handle.Name()] = f.size.Load()
		}
	}
	free := d.room
	for path, n := range d.owned {
		if _, err := os.Stat(strings.TrimSuffix(path, tmpSuffix)); err != nil {
			continue // removed, or not finished
		}
		free -= n
	}
	return free
}

// refused wants every op to be refused for want of room.
func (b *bench) refused(ops ...driver.Op) {
	b.t.Helper()
	_ = b.full(ops...)
}

// full is refused, and returns why.
func (b *bench) full(ops ...driver.Op) *FullError {
	b.t.Helper()
	var full *FullError
	replies, err := b.Apply(b.t.Context(), ops)
	if err == nil {
		for _, r := range replies {
			if r.Err == nil {
				b.t.Fatalf("got %+v, want an error", r)
			}
			err = r.Err
		}
	}
	if !errors.As(err, &full) || !errors.Is(err, ErrFull) || errors.Is(err, ErrPoisoned) || driver.IsPermanent(err) {
		b.t.Fatalf("got %v, want a FullError that may pass", err)
	}
	return full
}

// fillDisk records large results, and then claims keys of the name until there is
// no room for more. It returns the claims.
func (b *bench) fillDisk(name string) (claims []driver.Record) {
	b.t.Helper()
	for i := 0; ; i++ {
		st, err := b.Stats(b.t.Context())
		if err != nil {
			b.t.Fatal(err)
		}
		if st.Bytes > st.Limit-1<<20 {
			break
		}
		ops := make([]driver.Op, 4)
		for j := range ops {
			ops[j] = complete1(key("large "+name, i*len(ops)+j), 1, day)
			ops[j].Result = make([]byte, 64<<10)
		}
		b.apply(ops...)
	}
	for _, batch := range []int{256, 1} {
		for full := false; !full; {
			if len(claims) > 100_000 {
				b.t.Fatal("the disk does not fill")
			}
			ops := make([]driver.Op, batch)
			for i := range ops {
				ops[i] = claim1(key(name, len(claims)+i), 1)
			}
			replies, err := b.Apply(b.t.Context(), ops)
			if err != nil {
				b.t.Fatalf("Apply: %v", err)
			}
			for _, r := range replies {
				if full = errors.Is(r.Err, ErrFull); full {
					break
				}
				if r.Err != nil {
					b.t.Fatalf("claim: %v", r.Err)
				}
				claims = append(claims, r.Record)
			}
		}
	}
	return claims
}

// On a full disk new claims are refused; duplicates are answered, and what runs
// is settled, in the room that was kept for it. When there is room again the
// store goes on by itself.
func TestDiskFull(t *testing.T) {
	b := newBench(t, Options{})
	done := key("done", 0)
	b.done(done, day)
	d := b.disk(8 << 20)
	claims := b.fillDisk("k")
	if len(claims) < 1000 {
		t.Errorf("got %d claims in 1 MiB", len(claims))
	}
	longer := claim1(key("new", 0), 1)
	longer.TTL *= 5
	full := b.full(longer)
	if longest := b.memory.TTL; longest >= longer.TTL {
		t.Errorf("got %v as the greatest TTL, of a claim that was refused: nothing has happened", longest)
	}
	if full.MaxBytes != 0 || full.Free != d.free() || full.Need <= full.Free {
		t.Errorf("got %+v, want what the disk has and the store needs", full)
	}
	oneLine(t, full, b.dir, "no room", "MiB", "free space")
	st, err := b.Stats(t.Context())
	if err != nil || st.Limit > st.Bytes+roomFor(driver.MaxBatch*entryRoom) {
		t.Errorf("Stats: got %d bytes, limit %d, %v, want the limit reached", st.Bytes, st.Limit, err)
	}

	d.set(0) // others take the rest
	b.want(claim1(done, 2), driver.StatusDone)
	b.want(claim1(key("k", 0), 1), driver.StatusGranted) // asked for again after a lost reply
	replies, err := b.Apply(t.Context(), []driver.Op{claim1(key("new", 0), 1), release1(key("k", 0), claims[0].Token), complete1(key("k", 1), claims[1].Token, day)})
	if err != nil || !errors.Is(replies[0].Err, ErrFull) || replies[1].Status != driver.StatusOK || replies[2].Status != driver.StatusOK {
		t.Fatalf("a claim beside a release and a complete: got %+v, %v, want the claim refused", replies, err)
	}
	b.refused(claim1(key("k", 0), 2)) // released: granting it would have to be written
	for i := 2; i < len(claims); i += driver.MaxBatch {
		var ops []driver.Op
		for j := i; j < min(i+driver.MaxBatch, len(claims)); j++ {
			ops = append(ops, complete1(key("k", j), claims[j].Token, day))
		}
		b.apply(ops...)
	}
	b.tend()
	b.refused(claim1(key("new", 0), 1))

	b.crash()
	b.disk(64 << 20)
	b.lookup(done, driver.StateDone)
	b.lookup(key("k", 0), driver.StateReleased)
	for i := 1; i < len(claims); i++ {
		b.lookup(key("k", i), driver.StateDone)
	}
	b.want(claim1(key("new", 0), 1), driver.StatusGranted)
}

// When even the reserve is used up, settling fails for now and nothing else.
func TestReserveUsedUp(t *testing.T) {
	b := newBench(t, Options{})
	d := b.disk(0)
	ops := make([]driver.Op, 40)
	for i := range ops {
		ops[i] = complete1(key("k", i), 1, day)
		ops[i].Position.Source = "a source that is new"
		ops[i].Result = make([]byte, 64<<10)
	}
	written := 0
	for ; ; written++ {
		if written > 100 {
			t.Fatal("the reserve does not end")
		}
		for i := range ops {
			ops[i].ID = key("k", written*len(ops)+i)
		}
		if _, err := b.Apply(t.Context(), ops); err != nil {
			break
		}
	}
	if written < 2 {
		t.Errorf("got %d batches with %d bytes of results into the reserve", written, len(ops)*64<<10)
	}
	// Its name of the source was not written either.
	odd := complete1(key("odd", 0), 1, day)
	odd.Position.Source = "another source"
	odd.Result = make([]byte, 4<<20)
	b.refused(odd)
	d.set(64 << 20)
	odd.Result = nil
	b.want(odd, driver.StatusOK)
	b.apply(ops...)
	b.crash()
	if r := b.lookup(odd.ID, driver.StateDone); r.First.Source != "another source" {
		t.Errorf("got source %q, want the one it was written with", r.First.Source)
	}
	for i := range ops {
		b.lookup(ops[i].ID, driver.StateDone)
	}
}

// A write that fails for want of space, where room cannot be taken ahead, leaves
// everything as it was, unless it may have been the last one.
func TestWriteWithoutSpace(t *testing.T) {
	noRoom := &fs.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}
	for _, tt := range []struct {
		name   string
		commit func(*bolt.Tx) error
		want   error
	}{
		{"a page", func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), noRoom) }, ErrFull},
		{"a quota", func(tx *bolt.Tx) error {
			return errors.Join(tx.Rollback(), &fs.PathError{Op: "write", Path: "log", Err: syscall.EDQUOT})
		}, ErrFull},
		{"the meta page, though it is there", func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), noRoom) }, ErrPoisoned},
		{"an fsync", func(tx *bolt.Tx) error { return errors.Join(tx.Rollback(), syscall.ENOSPC) }, ErrPoisoned},
		{"a disk that fails", func(tx *bolt.Tx) error {
			return errors.Join(tx.Rollback(), &fs.PathError{Op: "write", Path: "log", Err: syscall.EIO})
		}, ErrPoisoned},
	} {
		b := newBench(t, Options{})
		k := key("k", 0)
		r := b.want(claim1(k, 1), driver.StatusGranted)
		b.space.allocate = func(*os.File, int64, int64) error { return syscall.EOPNOTSUPP }
		b.space.free = func(string) (int64, error) { return 0, syscall.ENOSYS }
		b.commit = tt.commit
		replies, err := b.Apply(t.Context(), []driver.Op{complete1(k, r.Token, day)})
		if err == nil {
			err = replies[0].Err
		}
		if !errors.Is(err, tt.want) || errors.Is(err, ErrFull) == errors.Is(err, ErrPoisoned) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			continue
		}
		oneLine(t, err, b.dir)
		b.commit = (*bolt.Tx).Commit
		if errors.Is(err, ErrFull) {
			b.want(complete1(k, r.Token, day), driver.StatusOK)
			b.reopen()
			b.lookup(k, driver.StateDone)
		}
	}
}

// Where room cannot be taken ahead, claims are refused by what is free.
func TestDiskFullWithoutAllocate(t *testing.T) {
	b := newBench(t, Options{})
	d := b.disk(100 << 20)
	b.space.allocate = func(*os.File, int64, int64) error { return syscall.EOPNOTSUPP }
	r := b.want(claim1(key("k", 0), 1), driver.StatusGranted)
	b.files[0].allocated.Store(0)
	d.set(b.space.reserve)
	b.refused(claim1(key("k", 1), 1))
	b.want(complete1(key("k", 0), r.Token, day), driver.StatusOK)
	d.set(2 * b.space.reserve)
	b.want(claim1(key("k", 1), 1), driver.StatusGranted)
}

// A store that filled its disk by itself gets out of that when its records
// expire, although a new file needs room first.
func TestFullDiskExpires(t *testing.T) {
	b := newBench(t, Options{})
	d := b.disk(4 << 20)
	b.fillDisk("k")
	d.set(0)
	b.refused(claim1(key("new", 0), 1))
	b.clock.advance(3 * day)
	b.tend()
	if got := b.numbers(); len(got) != 1 || got[0] != 2 {
		t.Fatalf("files: got %v, want the first dropped", got)
	}
	b.want(claim1(key("new", 0), 1), driver.StatusGranted)
}

// The reserve stays where it is while something runs, though the file is large: what
// else fills the disk would take it before the next file has it.
func TestReserveStaysWhileSomethingRuns(t *testing.T) {
	b := newBench(t, Options{})
	d := b.disk(8 << 20)
	claims := b.fillDisk("k")[:512]
	d.set(0)
	large := b.newest()
	b.options.RollBytes = large.size.Load()
	allocate := b.space.allocate
	b.space.allocate = func(*os.File, int64, int64) error { return syscall.ENOSPC } // it was faster
	var ops []driver.Op
	for i, c := range claims {
		ops = append(ops, complete1(key("k", i), c.Token, day))
	}
	b.apply(ops...)
	if large != b.newest() {
		t.Error("there is a new file, and claims that are not settled")
	}
	b.space.allocate = allocate
	b.clock.advance(2 * lease)
	b.tend()
	if large == b.newest() {
		t.Error("nothing runs, and there is no new file")
	}
}

// Records that live on in an expired file are carried on a full disk, too; where
// not even half the reserve is left the file stays, and is dropped later.
func TestCarryOnAFullDisk(t *testing.T) {
	b := newBench(t, Options{})
	b.done(key("long", 0), 30*day)
	b.fill("short", 100, time.Hour)
	b.nextFile()
	b.disk(0)
	b.clock.advance(2 * day)
	f := b.newest()
	owned := f.allocated.Load()
	f.allocated.Store(f.size.Load() + b.space.reserve/2)
	if err := b.Store.tend(); !errors.Is(err, ErrFull) {
		t.Errorf("with half a reserve: got %v, want ErrFull", err)
	}
	b.lookup(key("long", 0), driver.StateDone)
	if got := b.numbers(); got[0] != 1 {
		t.Errorf("files: got %v, want the first still there", got)
	}
	f.allocated.Store(owned)
	b.tend()
	if got := b.numbers(); got[0] == 1 {
		t.Errorf("files: got %v, want the first dropped in the reserve", got)
	}
	b.lookup(key("long", 0), driver.StateDone)
}

// TestExpiredFileGoesFromAFullDisk: to drop what has expired as a whole takes no
// room, so it is done however little of the reserve is left.
func TestExpiredFileGoesFromAFullDisk(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("old", 1000, time.Hour)
	b.nextFile()
	d := b.disk(8 << 20)
	b.fillDisk("k")
	for i := 0; b.newest().allocated.Load()-b.newest().size.Load() > b.space.reserve/2-1<<20; i++ {
		op := complete1(key("big", i), 1, day)
		op.Result = make([]byte, 64<<10)
		b.apply(op)
	}
	d.set(0)
	before := len(b.numbers())
	b.clock.advance(3 * time.Hour)
	_ = b.Store.tend() // what lives has no room to be carried
	if got := len(b.numbers()); got != before-1 {
		t.Errorf("got %d files, want %d: the oldest one has expired", got, before-1)
	}
}

// Claims that are renewed for long are written again, and leave room to settle them.
func TestRenewalsLeaveRoom(t *testing.T) {
	b := newBench(t, Options{})
	d := b.disk(4 << 20)
	const ttl, runs = 2 * time.Minute, 2000
	var ops []driver.Op
	for i := range runs {
		op := claim1(key("run", i), 1)
		op.TTL = ttl
		ops = append(ops, op)
	}
	running := b.apply(ops...)
	b.fillDisk("k")
	d.set(0)
	full := false
	for range 100 {
		b.clock.advance(lease / 3)
		ops = ops[:0]
		for i, r := range running {
			ops = append(ops, driver.Op{Kind: driver.OpExtend, ID: key("run", i), Token: r.Record.Token, Lease: lease, TTL: ttl})
		}
		b.apply(ops...)
		full = errors.Is(b.Store.tend(), ErrFull)
	}
	if !full {
		t.Error("nothing filled the room for what is carried")
	}
	ops = ops[:0]
	for i, r := range running {
		op := complete1(key("run", i), r.Record.Token, ttl)
		op.Result = make([]byte, 300)
		ops = append(ops, op)
	}
	for i, r := range b.apply(ops...) {
		if r.Status != driver.StatusOK {
			t.Fatalf("run %d: got %v, want it settled", i, r.Status)
		}
	}
}
