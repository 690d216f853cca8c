package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// logPages returns the root of a file's log, which is a branch, and the leaves
// below it, in order.
func logPages(t *testing.T, path string) (root int64, leaves []int64, size int64) {
	t.Helper()
	p, err := openTree(path, func(offset int64, cause error) { t.Fatalf("offset %d: %v", offset, cause) })
	if err != nil {
		t.Fatal(err)
	}
	id, _, inline, err := p.bucket(bucketName)
	if err != nil || inline != nil {
		t.Fatalf("got %v, %v, want a log with pages", inline, err)
	}
	page, err := p.read(id)
	if err != nil || page.flags != branchPage {
		t.Fatalf("got %+v, %v, want a branch", page, err)
	}
	for i := range page.count {
		leaves = append(leaves, int64(binary.NativeEndian.Uint64(page.bytes[pageHeaderLen+i*elementLen+8:]))*p.pageSize)
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	return int64(id) * p.pageSize, leaves, p.pageSize
}

// child makes the first child of the branch at offset another page.
func child(t *testing.T, path string, offset int64, id uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, id), offset+pageHeaderLen+8)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// A page takes with it what is on it, and nothing else: not even the one with the
// first entry, which all others are relative to. Pages that lead in a circle, or
// out of the file, keep nobody busy.
func TestRepairOfDamagedPages(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
		kept   [2]int // from, to
		at     func(t *testing.T, path string) int64
	}{
		{"the page of the first entry", func(t *testing.T, path string) {
			_, leaves, size := logPages(t, path)
			overwrite(t, path, leaves[0], int(size))
		}, [2]int{820, 899}, func(t *testing.T, path string) int64 { _, leaves, _ := logPages(t, path); return leaves[0] }},
		{"a page", func(t *testing.T, path string) {
			_, leaves, size := logPages(t, path)
			overwrite(t, path, leaves[3], int(size))
		}, [2]int{820, 899}, func(t *testing.T, path string) int64 { _, leaves, _ := logPages(t, path); return leaves[3] }},
		{"a page's number of elements", func(t *testing.T, path string) {
			_, leaves, _ := logPages(t, path)
			overwrite(t, path, leaves[3]+10, 2)
		}, [2]int{830, 900}, nil},
		{"a loop", func(t *testing.T, path string) {
			root, _, size := logPages(t, path)
			child(t, path, root, uint64(root/size))
		}, [2]int{820, 899}, func(t *testing.T, path string) int64 { root, _, _ := logPages(t, path); return root }},
		{"a page with two parents", func(t *testing.T, path string) {
			root, leaves, size := logPages(t, path)
			child(t, path, root, uint64(leaves[1]/size))
		}, [2]int{820, 899}, nil},
		{"out of the file", func(t *testing.T, path string) {
			root, _, _ := logPages(t, path)
			child(t, path, root, 1<<60)
		}, [2]int{820, 899}, nil},
		{"the root", func(t *testing.T, path string) {
			root, _, size := logPages(t, path)
			overwrite(t, path, root, int(size))
		}, [2]int{600, 600}, func(t *testing.T, path string) int64 { root, _, _ := logPages(t, path); return root }},
		{"both meta pages", func(t *testing.T, path string) {
			overwrite(t, path, 0, os.Getpagesize()+metaOffset+metaLen)
		}, [2]int{600, 600}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := threeFiles(t)
			whole, dir := b.copy(), b.copy()
			path := filepath.Join(dir, fileName(2))
			tt.damage(t, path)
			before := snapshot(t, dir)
			_, err := Open(dir, &b.opts)
			var damage *DamageError
			if !errors.As(err, &damage) || damage.File != path {
				t.Fatalf("Open: got %v, want damage in %s", err, path)
			}
			oneLine(t, err, path)
			if tt.at != nil {
				if want := tt.at(t, filepath.Join(whole, fileName(2))); damage.Offset != want {
					t.Errorf("Open: got offset %d, want %d", damage.Offset, want)
				}
			}
			report, err := Verify(dir, &b.opts)
			if err != nil || len(report.Lost) == 0 || report.Kept < tt.kept[0] || report.Kept > tt.kept[1] {
				t.Errorf("Verify: got %+v, %v, want damage, and %v records kept", report, err, tt.kept)
			}
			for _, d := range report.Lost {
				if d.File != path && d.Sequence == 0 {
					t.Errorf("Verify: got %v, want damage in %s", d, path)
				}
			}
			if tt.at != nil {
				want := tt.at(t, filepath.Join(whole, fileName(2)))
				if !slices.ContainsFunc(report.Lost, func(d *DamageError) bool { return d.Offset == want }) {
					t.Errorf("Verify: got %v, want offset %d among it", report.Lost, want)
				}
			}
			if after := snapshot(t, dir); after != before {
				t.Error("something was written")
			}
			repaired, err := Repair(dir, &b.opts)
			if err != nil || len(repaired.Lost) != len(report.Lost) || repaired.Kept != report.Kept || !repaired.Since.Equal(b.clock.Now()) {
				t.Errorf("Repair: got %+v, %v, want what Verify found: %+v", repaired, err, report)
			}
			s, err := Open(dir, &b.opts)
			if err != nil {
				t.Fatal(err)
			}
			if n := countRight(t, s); n != report.Kept {
				t.Errorf("got %d records, want %d", n, report.Kept)
			}
			closeStore(t, s)
		})
	}
}

func TestVerify(t *testing.T) {
	b := threeFiles(t)
	if _, err := Verify(b.dir, &b.opts); !errors.Is(err, ErrInUse) {
		t.Errorf("Verify of an open store: got %v, want ErrInUse", err)
	}
	dir := b.copy()
	before := snapshot(t, dir)
	v, err := b.Vouch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := Verify(dir, &b.opts)
	if err != nil || len(report.Lost) != 0 || report.Kept != 900 || !report.Since.Equal(v.Since) {
		t.Errorf("got %+v, %v, want no damage, 900 records, since %v", report, err, v.Since)
	}
	if after := snapshot(t, dir); after != before {
		t.Error("something was written")
	}
	if _, err := Verify(t.TempDir(), nil); err == nil {
		t.Error("Verify of an empty directory: got no error")
	}
}

// A file that was made before there was a copy of the first entry is repaired as
// far as that entry can be read.
func TestRepairWithoutHead(t *testing.T) {
	for _, tt := range []struct {
		name string
		seq  uint64
		kept int
	}{{"the first entry", 304, 600}, {"another", 400, 899}} {
		b := threeFiles(t)
		dir := b.copy()
		path := filepath.Join(dir, fileName(2))
		db, err := bolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket(headName) })
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, &b.opts)
		if err != nil {
			t.Fatalf("a store without heads: %v", err)
		}
		closeStore(t, s)
		rewrite(t, path, tt.seq, func(v []byte) []byte { v[10] ^= 1; return v })
		if report, err := Repair(dir, &b.opts); err != nil || report.Kept != tt.kept || len(report.Lost) == 0 {
			t.Errorf("%s: got %+v, %v, want %d records kept", tt.name, report, err, tt.kept)
		}
	}
}

// What Repair makes of any bytes is an answer, not a panic.
func FuzzDamagedFile(f *testing.F) {
	for _, dir := range goldenDirs {
		golden, err := os.ReadFile(filepath.Join(dir, fileName(1)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(golden[:16<<10])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		path := filepath.Join(dir, fileName(1))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_ = checkPages(path)
		r := &repair{dir: dir, newest: make(map[driver.ID]location)}
		if o, err := (*Options)(nil).filled(); err == nil {
			r.options = o
		}
		_ = r.read()
	})
}

// Whatever byte of a page of packs is damaged, each entry is found as it was written,
// or reported, and those of other pages are found.
func TestSalvageOfDamagedPacks(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 200, day)
	path := filepath.Join(b.copy(), fileName(1))
	f := newFile(1, 0, time.Time{}, time.Hour, path, nil, nil)
	if _, err := readHead(f); err != nil {
		t.Fatal(err)
	}
	read := func() (found map[uint64][]byte, lost map[uint64]bool) {
		found, lost = make(map[uint64][]byte), make(map[uint64]bool)
		_, err := f.salvage(func(seq uint64, e item) error {
			if _, _, err := unseal(e.value, seq); err != nil {
				lost[seq] = true
			} else {
				found[seq] = bytes.Clone(e.value)
			}
			return nil
		}, func(d *DamageError) {
			for seq := d.Sequence; seq <= d.Last; seq++ {
				lost[seq] = true
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return found, lost
	}
	want, _ := read()
	_, leaves, size := logPages(t, path)
	leaf := leaves[len(leaves)/2]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	worst := 0
	for at := leaf + pageHeaderLen; at < leaf+size; at += 5 {
		overwriteWith(t, path, at, whole[at]^1<<(at%8))
		found, lost := read()
		for seq, e := range want {
			if (found[seq] != nil) == lost[seq] || found[seq] != nil && !bytes.Equal(found[seq], e) {
				t.Fatalf("offset %d: entry %d: got %x, reported lost: %t, want %x or lost", at, seq, found[seq], lost[seq], e)
			}
		}
		worst = max(worst, len(want)-len(found))
		overwriteWith(t, path, at, whole[at])
	}
	if pack := 8; worst > pack*2 {
		t.Errorf("one byte took %d entries with it, want no more than those of the packs that it is in or points to", worst)
	}
}

func overwriteWith(t *testing.T, path string, at int64, b byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte{b}, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
