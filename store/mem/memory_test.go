package memstore_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

const (
	lease = time.Minute
	ttl   = time.Hour
)

// wall is a clock that a test sets.
type wall struct{ now time.Time }

func (w *wall) Now() time.Time { return w.now }

func newWall() *wall { return &wall{time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)} }

func apply(t *testing.T, s *memstore.Store, ops ...driver.Op) []driver.Reply {
	t.Helper()
	replies, err := s.Apply(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return replies
}

func claim(key dedup.Key) driver.Op {
	return driver.Op{Kind: driver.OpClaim, ID: dedup.NewID("test", key), Nonce: 1, Lease: lease, TTL: ttl}
}

func records(t *testing.T, s *memstore.Store) int64 {
	t.Helper()
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats.Records
}

// TestExpiredRecordsAreFreed: a forgotten record takes no memory, and freeing the records never
// holds up one call for long.
func TestExpiredRecordsAreFreed(t *testing.T) {
	clock := newWall()
	s := memstore.New(&memstore.Options{Now: clock.Now})
	const n = 1000
	for i := range n {
		op := claim(dedup.Key(fmt.Sprint(i)))
		token := apply(t, s, op)[0].Record.Token
		end := driver.Op{Kind: driver.OpComplete, ID: op.ID, Token: token, TTL: time.Duration(1+i%7) * time.Minute}
		apply(t, s, end)
	}
	if got := records(t, s); got != n {
		t.Fatalf("records: got %d, want %d", got, n)
	}
	clock.now = clock.now.Add(3 * time.Minute)
	living := int64(0)
	for i := range n {
		if 1+i%7 > 3 {
			living++
		}
	}
	before := records(t, s)
	apply(t, s, claim("new"))
	if after := records(t, s); after >= before || after < before-10 {
		t.Errorf("records after one operation: got %d of %d, want a few less", after, before)
	}
	for i := range n {
		apply(t, s, driver.Op{Kind: driver.OpExtend, ID: dedup.NewID("other", dedup.Key(fmt.Sprint(i)))})
	}
	if got := records(t, s); got != living+1 {
		t.Errorf("records after more of them: got %d, want the %d that live and the new one", got, living)
	}
	clock.now = clock.now.Add(lease + ttl)
	for range n {
		apply(t, s, driver.Op{Kind: driver.OpExtend})
	}
	if got := records(t, s); got != 0 {
		t.Errorf("records when all have expired: got %d, want 0", got)
	}
}

// TestExtendedRecordsAreKept: if the expiry of a record is moved to a later time, the record is not
// freed at the earlier time.
func TestExtendedRecordsAreKept(t *testing.T) {
	clock := newWall()
	s := memstore.New(&memstore.Options{Now: clock.Now})
	op := claim("long")
	token := apply(t, s, op)[0].Record.Token
	for range 100 {
		clock.now = clock.now.Add(lease - time.Second)
		extend := driver.Op{Kind: driver.OpExtend, ID: op.ID, Token: token, Lease: lease, TTL: ttl}
		if got := apply(t, s, claim("short"), extend)[1].Status; got != driver.StatusOK {
			t.Fatalf("extend: got %v, want ok", got)
		}
	}
	if got := apply(t, s, op)[0]; got.Status != driver.StatusGranted || got.Record.Token != token {
		t.Errorf("repeated claim: got %v under token %d, want granted under %d", got.Status, got.Record.Token, token)
	}
}

// TestWallClockSetBack: if the wall clock is set back while the store is open, the store's time
// stands still, and no record lives again.
func TestWallClockSetBack(t *testing.T) {
	clock := newWall()
	s := memstore.New(&memstore.Options{Now: clock.Now})
	op := claim("a")
	first := apply(t, s, op)[0].Record
	clock.now = clock.now.Add(lease)
	other := op
	other.Nonce = 2
	second := apply(t, s, other)[0]
	if second.Status != driver.StatusGranted || !second.Record.Ambiguous {
		t.Fatalf("claim after the lease: got %v, ambiguous %t, want granted and ambiguous", second.Status, second.Record.Ambiguous)
	}
	clock.now = clock.now.Add(-10 * ttl)
	if got := apply(t, s, driver.Op{Kind: driver.OpExtend, ID: op.ID, Token: first.Token, Lease: lease, TTL: ttl})[0]; got.Status != driver.StatusLost {
		t.Errorf("extend by the first holder after the clock was set back: got %v, want lost", got.Status)
	}
	third := apply(t, s, claim("b"))[0].Record
	if third.FirstSeen.Before(second.Record.LeaseEnd.Add(-lease)) || third.Token <= second.Record.Token {
		t.Errorf("claim after the clock was set back: got time %v and token %d, want neither to fall below %v and %d",
			third.FirstSeen, third.Token, second.Record.LeaseEnd.Add(-lease), second.Record.Token)
	}
}

func TestVouch(t *testing.T) {
	clock := newWall()
	opened := clock.now
	for _, c := range []struct {
		name       string
		from, want time.Time
	}{
		{"default", time.Time{}, opened},
		{"earlier", opened.Add(-time.Hour), opened.Add(-time.Hour)},
		{"later", opened.Add(time.Hour), opened},
	} {
		s := memstore.New(&memstore.Options{Now: clock.Now, VouchFrom: c.from})
		v, err := s.Vouch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !v.Since.Equal(c.want) || v.Shared {
			t.Errorf("%s: got since %v, shared %t, want %v, false", c.name, v.Since, v.Shared, c.want)
		}
	}
	a, _ := memstore.New(nil).Vouch(t.Context())
	b, _ := memstore.New(nil).Vouch(t.Context())
	if a.ID == b.ID {
		t.Errorf("two stores: got one identity %q, want two", a.ID)
	}
}

// TestDefaultClock: without a clock of its own a store lives in the present.
func TestDefaultClock(t *testing.T) {
	before := time.Now().Truncate(time.Microsecond)
	r := apply(t, memstore.New(nil), claim("a"))[0].Record
	if after := time.Now(); r.FirstSeen.Before(before) || r.FirstSeen.After(after) {
		t.Errorf("FirstSeen: got %v, want from %v to %v", r.FirstSeen, before, after)
	}
}

func BenchmarkApply(b *testing.B) {
	s := memstore.New(nil)
	ops := make([]driver.Op, 256)
	i := 0
	for b.Loop() {
		for j := range ops {
			i++
			ops[j] = claim("")
			ops[j].ID = driver.ID{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)}
			ops[j].Lease, ops[j].TTL = time.Millisecond, time.Millisecond
		}
		if _, err := s.Apply(context.Background(), ops); err != nil {
			b.Fatal(err)
		}
	}
}
