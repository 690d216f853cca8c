package boltstore

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Every version of the format has a directory in testdata that stays as it is.
var update = flag.Bool("update-golden", false, "write the newest directory of testdata anew: only before its format is released")

// The programs that wrote them lacked something: that of v1 packs, that of v2 the
// uptime, and that of v3 holders, notes and tags in records.
var goldenDirs = []string{"testdata/v1", "testdata/v2", "testdata/v3", "testdata/v4"}

// goldenUptime is what the system's clock tells on a clock on which it began 5h
// before base.
func goldenUptime(clock *testClock) func() uptime {
	return func() uptime { return uptime{[16]byte{1, 15: 2}, clock.Now().Sub(base) + 5*time.Hour} }
}

func golden(i int) driver.ID { return dedup.NewID("golden", dedup.Key(rune('0'+i))) }

// goldenRecords are what a store in testdata remembers.
func goldenRecords(dir string) map[driver.ID]driver.Record {
	token := driver.Token(base.UnixMicro())
	position := driver.Position{Source: "orders", Partition: 3, Offset: 42}
	fingerprint := driver.Fingerprint{1, 2, 3, 4, 5, 6, 7, 8}
	record := func(r driver.Record) driver.Record {
		r.FirstSeen, r.First, r.Fingerprint = base, position, fingerprint
		if r.Expires.IsZero() {
			r.Expires = base.Add(day)
		}
		return r
	}
	records := map[driver.ID]driver.Record{
		golden(0): record(driver.Record{State: driver.StateClaimed, Token: token, Nonce: 11, LeaseEnd: base.Add(lease), Expires: base.Add(lease + day)}),
		golden(1): record(driver.Record{State: driver.StateDone, Token: token + 1, Result: []byte("result")}),
		golden(2): record(driver.Record{State: driver.StateDone, Token: token + 2, Omitted: true}),
		golden(3): record(driver.Record{State: driver.StateReleased, Token: token + 3, Nonce: 14, Attempt: 1, Ambiguous: true}),
		golden(4): record(driver.Record{State: driver.StateParked, Token: token + 4, Result: []byte("no such order")}),
		// golden(5) was forgotten.
		golden(6): {
			State: driver.StateDone, Token: 7, Expires: base.Add(time.Hour + day), FirstSeen: base.Add(time.Hour),
			First: driver.Position{Source: "payments", Partition: 0, Offset: 1},
		},
	}
	if slices.Index(goldenDirs, dir) < slices.Index(goldenDirs, "testdata/v4") {
		return records
	}
	held := records[golden(0)]
	held.Held = position
	records[golden(0)] = held
	records[golden(8)] = driver.Record{
		State: driver.StateClaimed, Token: token + 7, Nonce: 22, Attempt: 1, FirstSeen: base, First: position,
		Fingerprint: fingerprint, Tag: 7, LeaseEnd: base.Add(lease), Expires: base.Add(lease + day),
		Held: driver.Position{Source: "copies", Partition: 1, Offset: 5}, Note: []byte("note"),
	}
	parked := record(driver.Record{State: driver.StateParked, Token: token + 8, Ambiguous: true, Result: []byte("the last run died")})
	parked.Tag = 7
	records[golden(9)] = parked
	return records
}

func TestGolden(t *testing.T) {
	if *update {
		writeGolden(t, goldenDirs[len(goldenDirs)-1])
	}
	for _, dir := range goldenDirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			clock := &testClock{now: base.Add(3 * time.Hour)}
			readGolden(t, dir, Options{Now: clock.Now}, base.Add(3*time.Hour-day))
		})
	}
	t.Run("uptime", func(t *testing.T) {
		clock := &testClock{now: base.Add(3 * time.Hour)}
		wall := &testClock{now: base.Add(300 * day)}
		readGolden(t, goldenDirs[len(goldenDirs)-1], Options{Now: wall.Now, uptime: goldenUptime(clock)}, base.Add(298*day))
	})
}

func readGolden(t *testing.T, goldenDir string, o Options, since time.Time) {
	t.Helper()
	dir := t.TempDir()
	copyDir(t, dir, goldenDir)
	o.RollBytes = minRollBytes
	s, err := Open(dir, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, s)
	// Its TTL became longer, and what was recorded before goes.
	v, err := s.Vouch(t.Context())
	if err != nil || !v.Since.Equal(since) || v.ID == "" {
		t.Errorf("Vouch: got %+v, %v, want an id and since %v", v, err, since)
	}
	want := goldenRecords(goldenDir)
	seen := 0
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if w, ok := want[r.ID]; !ok || !same(&r.Record, &w) {
			t.Errorf("got %+v, want %+v", r.Record, w)
		}
	}
	if seen != len(want) {
		t.Errorf("got %d records, want %d", seen, len(want))
	}
	token := driver.Token(base.UnixMicro())
	for _, r := range want {
		token = max(token, r.Token)
	}
	if len(want) == 6 {
		token++ // of golden(5)
	}
	if st, err := s.Stats(t.Context()); err != nil || st.Token != token || len(s.files) != 2 {
		t.Errorf("got token %d, %d files, %v, want %d and 2", st.Token, len(s.files), err, token)
	}
}

func writeGolden(t *testing.T, goldenDir string) {
	b := newBench(t, Options{RollBytes: minRollBytes})
	closeStore(t, b.Store)
	b.dir = t.TempDir()
	b.clock.now = base
	b.opts.uptime = goldenUptime(b.clock)
	b.opts.VouchFrom = base.Add(-2 * day)
	b.open()
	var claims, ends []driver.Op
	for i := range 6 {
		op := claim1(golden(i), uint64(11+i))
		op.Fingerprint = driver.Fingerprint{1, 2, 3, 4, 5, 6, 7, 8}
		claims = append(claims, op)
	}
	for i, reply := range b.apply(claims...) {
		end := complete1(golden(i), reply.Record.Token, day)
		switch i {
		case 0:
			continue
		case 2:
			end.Result, end.Omitted = nil, true
		case 3:
			end = release1(golden(i), reply.Record.Token)
			end.Ambiguous = true
		case 4:
			end.Kind, end.Result = driver.OpPark, []byte("no such order")
		}
		ends = append(ends, end)
	}
	b.apply(ends...)
	if err := b.Forget(t.Context(), []driver.ID{golden(5)}); err != nil {
		t.Fatal(err)
	}
	claim := claim1(golden(8), 21)
	claim.Fingerprint, claim.Tag = driver.Fingerprint{1, 2, 3, 4, 5, 6, 7, 8}, 7
	r := b.want(claim, driver.StatusGranted)
	b.want(release1(golden(8), r.Token), driver.StatusOK)
	claim.Nonce, claim.Note = 22, []byte("note")
	claim.Position = driver.Position{Source: "copies", Partition: 1, Offset: 5}
	b.want(claim, driver.StatusGranted)
	claim = claim1(golden(9), 23)
	claim.Fingerprint, claim.Tag = driver.Fingerprint{1, 2, 3, 4, 5, 6, 7, 8}, 7
	r = b.want(claim, driver.StatusGranted)
	b.want(driver.Op{Kind: driver.OpPark, ID: golden(9), Token: r.Token, TTL: day, Ambiguous: true, Result: []byte("the last run died")}, driver.StatusOK)
	b.clock.advance(time.Hour)
	b.nextFile()
	b.want(driver.Op{Kind: driver.OpComplete, ID: golden(6), Token: 7, TTL: day, Position: driver.Position{Source: "payments", Offset: 1}}, driver.StatusOK)
	b.want(driver.Op{Kind: driver.OpRelease, ID: golden(7), TTL: 2 * day}, driver.StatusLost)
	closeStore(t, b.Store)
	if err := os.RemoveAll(goldenDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyDir(t, goldenDir, b.dir)
	if err := os.Remove(filepath.Join(goldenDir, lockName)); err != nil {
		t.Fatal(err)
	}
	b.open()
}
