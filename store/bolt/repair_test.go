package boltstore

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

func TestRepair(t *testing.T) {
	b := newBench(t, Options{RollBytes: 1 << 20})
	again, fell, forgotten, orphan := key("again", 0), key("fell", 0), key("forgotten", 0), key("orphan", 0)
	b.done(again, day)
	b.fill("file 1", 300, day)
	r := b.want(claim1(fell, 1), driver.StatusGranted)
	b.want(claim1(orphan, 1), driver.StatusGranted)
	b.done(forgotten, day)
	b.nextFile()
	high := b.want(claim1(key("last", 0), 1), driver.StatusGranted).Token
	b.fill("file 2", 300, day)
	b.want(complete1(fell, r.Token, day), driver.StatusOK)
	lost := b.last
	if err := b.Forget(t.Context(), []driver.ID{forgotten}); err != nil {
		t.Fatal(err)
	}
	before, err := b.Vouch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.clock.advance(time.Hour)
	dir := b.copy()
	path := filepath.Join(dir, fileName(2))
	rewrite(t, path, lost, func(v []byte) []byte { v[10] ^= 1; return v })
	rewrite(t, path, lost-1, func([]byte) []byte { return nil })
	rewrite(t, path, lost-100, func(v []byte) []byte { v[30] ^= 1; return v })

	report, err := Repair(dir, &b.opts)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Lost) != 2 || report.Lost[0].Sequence != lost-100 || report.Lost[0].File != path || report.Lost[0].Offset <= 0 ||
		report.Lost[1].Sequence != lost-1 || report.Lost[1].Last != lost {
		t.Errorf("lost: got %v, want entries %d, and %d to %d of %s", report.Lost, lost-100, lost-1, lost, path)
	}
	for _, d := range report.Lost {
		if oneLine(t, d, path); strings.Contains(d.Error(), "boltstore.Repair") || strings.Contains(d.Error(), "restore") {
			t.Errorf("lost: got %q, which advises what was just done", d)
		}
	}
	if want := 300 + 298 + 4; report.Kept != want || !report.Since.Equal(b.clock.Now()) {
		t.Errorf("got %d records since %v, want %d since %v", report.Kept, report.Since, want, b.clock.Now())
	}
	closeStore(t, b.Store)
	b.dir = dir
	b.open()
	if v, err := b.Vouch(t.Context()); err != nil || v.ID != before.ID || !v.Since.Equal(b.clock.Now()) {
		t.Errorf("Vouch: got %+v, %v, want id %s since %v", v, err, before.ID, b.clock.Now())
	}
	b.want(claim1(again, 2), driver.StatusDone)
	b.lookup(forgotten, driver.StateFree)
	for _, id := range []driver.ID{fell, orphan} { // back to what was there before
		if got := b.want(claim1(id, 2), driver.StatusGranted); !got.Ambiguous || got.Token <= high {
			t.Errorf("a claim from before the damage: got %+v, want Ambiguous, a token above %d", got, high)
		}
	}
	if got, err := b.Stats(t.Context()); err != nil || got.Records != int64(report.Kept) {
		t.Errorf("got %d records, %v, want %d", got.Records, err, report.Kept)
	}

	// Nothing to do.
	closeStore(t, b.Store)
	files := snapshot(t, dir)
	report, err = Repair(dir, &b.opts)
	if err != nil || len(report.Lost) != 0 || report.Kept != 602 {
		t.Errorf("Repair of a store that is whole: got %+v, %v", report, err)
	}
	if after := snapshot(t, dir); after != files {
		t.Errorf("Repair of a store that is whole wrote something")
	}
	b.open()
}

// A repaired store still knows the TTL of what it kept.
func TestRepairKeepsTheTTL(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 10, day)
	dir := b.copy()
	rewrite(t, filepath.Join(dir, fileName(1)), 8, func([]byte) []byte { return nil })
	closeStore(t, b.Store)
	b.dir = dir
	if report, err := Repair(dir, &b.opts); err != nil || report.Kept != 9 {
		t.Errorf("Repair: got %+v, %v, want 9 records kept", report, err)
	}
	b.open()
	b.clock.advance(10 * day)
	b.want(complete1(key("longer", 0), 1, 2*day), driver.StatusOK)
	if v, err := b.Vouch(t.Context()); err != nil || !v.Since.Equal(b.clock.Now().Add(-day)) {
		t.Errorf("a longer TTL than before the repair: got since %v, %v, want %v", v.Since, err, b.clock.Now().Add(-day))
	}
}

// A source's name is one entry for many records, which are worth more than it.
func TestRepairOfALostSource(t *testing.T) {
	b := newBench(t, Options{RollBytes: 1 << 20})
	payments := complete1(key("payments", 0), 1, day)
	payments.Position.Source = "payments"
	b.fill("orders", 300, day)
	b.apply(payments)
	dir := b.copy()
	path := filepath.Join(dir, fileName(1))
	const source = 3 // after what the store says of itself, twice
	rewrite(t, path, source, func(v []byte) []byte {
		if kind(v[1]) != kindSource {
			t.Fatalf("entry %d: got kind %d, want a source", source, v[1])
		}
		v[4] ^= 1
		return v
	})
	closeStore(t, b.Store)
	b.dir = dir
	report, err := Repair(dir, &b.opts)
	if err != nil || len(report.Lost) != 1 || report.Lost[0].Sequence != source || report.Lost[0].Last != source || report.Kept != 301 || report.Unnamed != 300 {
		t.Errorf("got %+v, %v, want entry %d lost, 301 records kept, 300 of them unnamed", report, err, source)
	}
	b.open()
	for _, key := range []driver.ID{key("orders", 0), key("orders", 299)} {
		if r := b.lookup(key, driver.StateDone); r.First != unnamed || string(r.Result) != "result" {
			t.Errorf("a record without its source: got %+v, want the result, first seen at %v", r, unnamed)
		}
	}
	if r := b.lookup(payments.ID, driver.StateDone); r.First != payments.Position {
		t.Errorf("a record with another source: got first seen at %v, want %v", r.First, payments.Position)
	}
	b.fill("orders", 1, day)
	b.want(claim1(key("orders", 0), 2), driver.StatusDone)
	b.crash()
	b.want(claim1(key("orders", 299), 2), driver.StatusDone)
}

// Whatever is left of a repair that was interrupted, it can be run again.
func TestRepairInterrupted(t *testing.T) {
	for _, removed := range []int{0, 1, 2, 3} {
		b := threeFiles(t)
		damaged := b.copy()
		rewrite(t, filepath.Join(damaged, fileName(2)), 400, func(v []byte) []byte { v[20] ^= 1; return v })
		repaired := t.TempDir()
		copyDir(t, repaired, damaged)
		if _, err := Repair(repaired, &b.opts); err != nil {
			t.Fatal(err)
		}
		// The new files are there, and the first of the old ones are gone.
		for n := range uint64(3) {
			if int(n) >= removed {
				copyFile(t, filepath.Join(repaired, fileName(n+1)), filepath.Join(damaged, fileName(n+1)))
			}
		}
		s, err := Open(repaired, &b.opts)
		if removed < 2 {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d removed: got %v, want ErrCorrupt", removed, err)
			}
			if _, err := Repair(repaired, &b.opts); err != nil {
				t.Fatal(err)
			}
			s, err = Open(repaired, &b.opts)
		}
		if err != nil {
			t.Fatalf("%d removed: %v", removed, err)
		}
		n := 0
		for _, err := range s.Records(t.Context()) {
			n++
			if err != nil {
				t.Fatal(err)
			}
		}
		if n != 899 || s.index.n != 899 {
			t.Errorf("%d removed: got %d records, %d in the index, want all but one", removed, n, s.index.n)
		}
		closeStore(t, s)
	}
}

// A store with any damage either opens and answers rightly, or says what is
// damaged; and Repair makes it one that opens, with nothing in it that was not
// there.
func TestRandomDamage(t *testing.T) {
	t.Parallel()
	b := threeFiles(t)
	damages := 60
	if testing.Short() {
		damages = 10
	}
	rng := rand.New(rand.NewPCG(1, 2))
	opened, lost := 0, 0
	for i := range damages {
		dir := b.copy()
		path := filepath.Join(dir, fileName(rng.Uint64N(3)+1))
		what := damageFile(t, rng, path)
		s, err := Open(dir, &b.opts)
		switch {
		case err == nil:
			opened++
			if n := countRight(t, s); n != 900 {
				t.Errorf("damage %d, %s: it opens with %d of 900 records", i, what, n)
			}
		case errors.Is(err, ErrCorrupt):
			if oneLine(t, err, path); strings.Contains(err.Error(), "runtime error") {
				t.Errorf("damage %d, %s: got %q, want none of the runtime's words", i, what, err)
			}
			if _, err := Repair(dir, &b.opts); err != nil {
				t.Fatalf("damage %d, %s: Repair: %v", i, what, err)
			}
			if s, err = Open(dir, &b.opts); err != nil {
				t.Fatalf("damage %d, %s: repaired: %v", i, what, err)
			}
			lost += 900 - countRight(t, s)
		default:
			t.Fatalf("damage %d, %s: got %v, want ErrCorrupt", i, what, err)
		}
		closeStore(t, s)
	}
	t.Logf("%d damages: %d where nothing is, else %d records lost of 900 on average", damages, opened, lost/max(damages-opened, 1))
	if opened == damages {
		t.Errorf("no damage was found")
	}
}

// damageFile flips a bit, zeroes a page, or cuts the file off.
func damageFile(t *testing.T, rng *rand.Rand, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const used = 48 << 10 // the rest of the file is for later
	at := rng.IntN(min(used, len(data)))
	what := "bit flip"
	switch rng.IntN(6) {
	case 0:
		what = "cut off"
		data = data[:at]
	case 1:
		what = "zeroed page"
		at &^= 4095
		clear(data[at:min(at+4096, len(data))])
	default:
		data[at] ^= 1 << rng.IntN(8)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return what
}

// unnamed is position after the repair of a file whose names are lost.
var unnamed = driver.Position{Source: "?", Partition: position.Partition, Offset: position.Offset}

// countRight counts the records of threeFiles, and wants no others.
func countRight(t *testing.T, s *Store) (n int) {
	t.Helper()
	known := make(map[driver.ID]bool)
	for _, name := range []string{"file 1", "file 2", "file 3"} {
		for i := range 300 {
			known[key(name, i)] = true
		}
	}
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatalf("Records: %v", err)
		}
		if !known[r.ID] || r.State != driver.StateDone || string(r.Result) != "result" || r.First != position && r.First != unnamed || r.Token != 1 {
			t.Errorf("got record %+v, which nobody wrote", r)
		}
		n++
	}
	return n
}
