package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// An append-only log has holes through which a record could come back or get
// lost. Each test is named after one.

func TestOldestFileIsDroppedFirst(t *testing.T) {
	b := newBench(t, Options{})
	k := key("forgotten", 0)
	b.done(k, 30*day)
	b.fill("long", 50, 30*day)
	b.nextFile()
	if err := b.Forget(t.Context(), []driver.ID{k}); err != nil {
		t.Fatal(err)
	}
	b.fill("short", 50, time.Minute)
	b.nextFile()
	b.fill("current", 1, 60*day)

	b.clock.advance(2 * day)
	b.tend()
	if got, want := b.numbers()[:3], []uint64{1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("files after all in the second expired: got %v first, want %v", got, want)
	}
	b.crash()
	b.lookup(k, driver.StateFree)

	b.clock.advance(30 * day)
	b.tend()
	if got, want := b.numbers(), []uint64{3}; !slices.Equal(got[:1], want) {
		t.Errorf("files after all in the first two expired: got %v, want only those from %v on", got, want)
	}
	b.crash()
	b.lookup(k, driver.StateFree)
	b.lookup(key("current", 0), driver.StateDone)
}

func TestForgottenStaysForgotten(t *testing.T) {
	b := newBench(t, Options{})
	old, young := key("old", 0), key("young", 0)
	b.done(old, day)
	b.nextFile()
	b.done(young, 3*day)
	b.fill("pin", 1, 3*day)
	if err := b.Forget(t.Context(), []driver.ID{old, young}); err != nil {
		t.Fatal(err)
	}
	free := func(when string) {
		t.Helper()
		for _, id := range []driver.ID{old, young} {
			if r, err := b.Lookup(t.Context(), id); err != nil || r.State != driver.StateFree {
				t.Errorf("%s: got %+v, %v, want no record", when, r, err)
			}
		}
	}
	free("at once")
	b.crash()
	free("reopened")
	b.clock.advance(day + 2*time.Hour) // the file of one record goes, that of the tombstones stays
	b.tend()
	if b.numbers()[0] != 2 {
		t.Fatalf("files: got %v, want the first dropped", b.numbers())
	}
	b.crash()
	free("after the older file was dropped")
	b.clock.advance(3 * day)
	b.tend()
	if b.numbers()[0] == 2 {
		t.Fatalf("files: got %v, want the second dropped", b.numbers())
	}
	b.crash()
	free("after that of the tombstones was dropped")
}

func TestWhatLivesIsCarriedForward(t *testing.T) {
	b := newBench(t, Options{})
	long := key("long", 0)
	want := b.done(long, 30*day)
	b.fill("short", 100, time.Hour)
	for range 20 {
		b.clock.advance(6 * time.Hour)
		b.fill("short", 100, time.Hour)
		b.tend()
		if got := b.lookup(long, driver.StateDone); !same(&got, &want) {
			t.Fatalf("carried forward: got %+v, want %+v", got, want)
		}
	}
	if n := len(b.numbers()); n > 3 {
		t.Errorf("got %d files, want the expired ones dropped", n)
	}
	if n := b.numbers()[0]; n < 10 {
		t.Errorf("the oldest file is number %d, want many dropped", n)
	}
	st, err := b.Stats(t.Context())
	if err != nil || st.Records > 400 {
		t.Errorf("got %d records in the index, %v, want the expired ones gone from it", st.Records, err)
	}
	b.crash()
	if got := b.lookup(long, driver.StateDone); !same(&got, &want) {
		t.Errorf("reopened: got %+v, want %+v", got, want)
	}
	b.clock.advance(30 * day)
	b.lookup(long, driver.StateFree)
}

// Between reading what lives in an old file and appending it again, the key
// gets a newer record: that one counts.
func TestCarryForwardAgainstConcurrentComplete(t *testing.T) {
	b := newBench(t, Options{})
	completed, forgotten, untouched := key("completed", 0), key("forgotten", 0), key("untouched", 0)
	r := b.want(claim1(completed, 1), driver.StatusGranted)
	b.done(forgotten, 30*day)
	b.done(untouched, 30*day)
	b.nextFile()

	f := b.files[0]
	found, next, err := b.remains(nil, f, f.first)
	if err != nil || next != 0 || len(found) != 3 {
		t.Fatalf("remains: got %d records, next %d, %v, want 3, all, and no error", len(found), next, err)
	}
	want := b.want(complete1(completed, r.Token, 30*day), driver.StatusOK)
	if err := b.Forget(t.Context(), []driver.ID{forgotten}); err != nil {
		t.Fatal(err)
	}
	before := b.last
	if err := b.asWriter(func() error { return b.move(found) }); err != nil {
		t.Fatalf("move: %v", err)
	}
	if got := b.last - before; got != 1 {
		t.Errorf("move appended %d entries, want one, for the record that nobody changed", got)
	}
	check := func(when string) {
		t.Helper()
		if got := b.lookup(completed, driver.StateDone); !same(&got, &want) {
			t.Errorf("%s: got %+v, want %+v", when, got, want)
		}
		b.lookup(forgotten, driver.StateFree)
		b.lookup(untouched, driver.StateDone)
	}
	check("moved")
	b.crash()
	check("reopened")
}

// A file gets its name when its first entry is on disk. Whatever a crash leaves
// of making one, nothing is lost.
func TestEmptyNewestFile(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(b *bench, tmp string) error
	}{
		{"created", func(_ *bench, tmp string) error { return os.WriteFile(tmp, nil, 0o600) }},
		{"half of a meta page", func(_ *bench, tmp string) error { return os.WriteFile(tmp, make([]byte, 2048), 0o600) }},
		{"without a log", func(_ *bench, tmp string) error {
			db, err := bolt.Open(tmp, 0o600, nil)
			if err != nil {
				return err
			}
			return db.Close()
		}},
		{"without its name", func(b *bench, tmp string) error {
			b.nextFile()
			return os.Rename(filepath.Join(b.dir, fileName(2)), tmp)
		}},
		{"without a record", func(b *bench, _ string) error { b.nextFile(); return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, Options{})
			k := key("done", 0)
			r := b.done(k, day)
			if err := tt.make(b, filepath.Join(b.dir, fileName(2)+tmpSuffix)); err != nil {
				t.Fatal(err)
			}
			b.crash()
			b.want(claim1(k, 2), driver.StatusDone)
			b.nextFile()
			next := b.want(claim1(key("next", 0), 1), driver.StatusGranted)
			if next.Token <= r.Token {
				t.Errorf("token: got %d, want more than %d", next.Token, r.Token)
			}
			b.crash()
			b.want(claim1(k, 2), driver.StatusDone)
			b.numbers()
		})
	}
}

func TestEqualHashes(t *testing.T) {
	b := newBench(t, Options{})
	closeStore(t, b.Store)
	b.hash = func(driver.ID) uint64 { return 42 }
	b.open()
	const n = 50
	for i := range n {
		b.lookup(key("k", i), driver.StateFree)
		r := b.want(claim1(key("k", i), 1), driver.StatusGranted)
		if i%2 == 0 {
			b.want(complete1(key("k", i), r.Token, time.Duration(i+1)*day), driver.StatusOK)
		} else {
			b.want(release1(key("k", i), r.Token), driver.StatusOK)
		}
	}
	check := func() {
		t.Helper()
		for i := range n {
			switch {
			case i == 10:
				b.lookup(key("k", i), driver.StateFree)
			case i%2 == 0:
				b.lookup(key("k", i), driver.StateDone)
			default:
				b.lookup(key("k", i), driver.StateReleased)
			}
		}
		if b.index.n != n-1 {
			t.Errorf("index: got %d entries, want %d", b.index.n, n-1)
		}
	}
	if err := b.Forget(t.Context(), []driver.ID{key("k", 10)}); err != nil {
		t.Fatal(err)
	}
	check()
	b.crash()
	check()
}

// An entry that cannot be read is an error, not a key that was never seen.
func TestUnreadableRecordIsNoAbsence(t *testing.T) {
	b := newBench(t, Options{})
	k, other := key("done", 0), key("other", 0)
	b.done(k, day)
	b.done(other, day)
	b.fill("many", 100, day)
	err := b.asWriter(func() error {
		seq := b.index.find(nil, b.hash(k))[0]
		return b.newest().db.Update(func(tx *bolt.Tx) error {
			at := keyOf(seq)
			unpack(t, tx.Bucket(bucketName))
			value := slices.Clone(tx.Bucket(bucketName).Get(at[:]))
			value[len(value)/2] ^= 1
			return tx.Bucket(bucketName).Put(at[:], value)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	replies, err := b.Apply(t.Context(), []driver.Op{claim1(k, 2), claim1(other, 2), complete1(k, 1, day)})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		var damage *DamageError
		if !errors.As(replies[i].Err, &damage) || damage.File != b.newest().path || damage.Offset <= 0 || driver.IsPermanent(replies[i].Err) {
			t.Errorf("reply %d: got %+v, want a DamageError with file and offset, not permanent: other keys can be read", i, replies[i])
		}
	}
	if replies[1].Err != nil || replies[1].Status != driver.StatusDone {
		t.Errorf("another key: got %+v, want done", replies[1])
	}
	if replies, _ := b.Apply(t.Context(), []driver.Op{extend1(k, 1)}); replies[0].Err == nil {
		t.Errorf("extend: got %+v, want an error", replies[0])
	}
	if _, err := b.Lookup(t.Context(), k); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Lookup: got %v, want ErrCorrupt", err)
	}
	if err := b.Forget(t.Context(), []driver.ID{k}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Forget: got %v, want ErrCorrupt", err)
	}
	var last error
	for _, err := range b.Records(t.Context()) {
		last = err
	}
	if !errors.Is(last, ErrCorrupt) {
		t.Errorf("Records: got %v at the end, want ErrCorrupt", last)
	}
}

// A claim that is renewed for longer than its record would live is not
// forgotten: not when its file is dropped, and not by a crash.
func TestLongLivedClaim(t *testing.T) {
	b := newBench(t, Options{})
	k := key("long", 0)
	r := b.want(claim1(k, 1), driver.StatusGranted)
	for i := range 4 * 24 * 60 * 3 {
		b.clock.advance(20 * time.Second)
		r = b.want(extend1(k, r.Token), driver.StatusOK)
		if i%180 == 0 {
			b.fill("other", 40, time.Hour)
			b.tend()
		}
	}
	if b.numbers()[0] < 4 {
		t.Fatalf("files: got %v, want that of the claim dropped", b.numbers())
	}
	b.want(claim1(k, 2), driver.StatusHeld)
	b.crash()
	b.clock.advance(22 * time.Hour)
	got := b.want(claim1(k, 2), driver.StatusGranted)
	if !got.Ambiguous || got.Attempt != 1 || got.Token <= r.Token {
		t.Errorf("after a crash: got %+v, want Ambiguous, Attempt 1, a token above %d", got, r.Token)
	}
}

// Memory holds the claims whose lease lives, and no others.
func TestEndedClaimsLeaveMemory(t *testing.T) {
	b := newBench(t, Options{})
	plain, renewed := key("plain", 0), key("renewed", 0)
	b.want(claim1(plain, 1), driver.StatusGranted)
	r := b.want(claim1(renewed, 1), driver.StatusGranted)
	b.clock.advance(lease / 2)
	r = b.want(extend1(renewed, r.Token), driver.StatusOK)
	b.clock.advance(lease)
	b.tend()
	b.tend()
	if len(b.held) != 0 {
		t.Errorf("in memory: got %d claims, want none", len(b.held))
	}
	if got := b.lookup(renewed, driver.StateClaimed); !same(&got, &r) {
		t.Errorf("a renewed claim: got %+v, want it written as it was, %+v", got, r)
	}
	b.want(extend1(plain, r.Token), driver.StatusLost)
}

// A token that ran ahead of the clock is remembered when nothing else is left of it.
func TestTokenOutlivesItsRecord(t *testing.T) {
	b := newBench(t, Options{})
	ahead := claim1(key("ahead", 0), 1)
	ahead.Floor = driver.Token(b.clock.Now().Add(365 * day).UnixMicro())
	high := b.want(ahead, driver.StatusGranted).Token
	b.nextFile()
	b.clock.advance(2 * day)
	b.tend()
	if got := b.numbers(); got[0] == 1 {
		t.Fatalf("files: got %v, want the first dropped", got)
	}
	b.crash()
	if got := b.want(claim1(key("other", 0), 1), driver.StatusGranted).Token; got <= high {
		t.Errorf("got token %d, and %d was issued", got, high)
	}
}
