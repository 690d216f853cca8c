package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// The operations of the rules carry these, unless a rule says otherwise.
const (
	lease = 30 * time.Second
	ttl   = time.Hour
	tick  = time.Millisecond // the shortest time that every store can tell
)

var (
	fingerprint = driver.Fingerprint{1, 2, 3}
	otherPrint  = driver.Fingerprint{4, 5, 6}
	tag         = driver.Tag(7)
	position    = driver.Position{Source: "orders", Partition: 3, Offset: 42}
	elsewhere   = driver.Position{Source: "orders", Partition: 4, Offset: 99}
)

// suite is one store under test.
type suite struct {
	t      *testing.T
	store  driver.Store
	clock  *movingClock
	offset time.Duration // how far the store's time is from the clock's
	keys   int
}

func newSuite(t *testing.T, open func(*testing.T, Clock) driver.Store) *suite {
	t.Helper()
	s := &suite{t: t, clock: newClock()}
	s.store = open(t, s.clock)
	s.probe()
	return s
}

// probe asks the store for its time, by a claim: a store need not start at the
// clock's time, but it keeps pace with it.
func (s *suite) probe() {
	s.t.Helper()
	r := s.want(claim(s.id(), 1), driver.StatusGranted)
	if r.FirstSeen.IsZero() {
		s.t.Fatalf("claim of a free key: got no FirstSeen, want the store's time")
	}
	s.offset = r.FirstSeen.Sub(s.clock.Now())
}

// now returns the store's time.
func (s *suite) now() time.Time { return s.clock.Now().Add(s.offset) }

func (s *suite) advance(d time.Duration) { s.clock.advance(d) }

// id returns the ID of a key that no one has seen.
func (s *suite) id() driver.ID {
	s.keys++
	return dedup.NewID(s.t.Name(), dedup.Key(fmt.Sprint(s.keys)))
}

// apply applies ops as one batch and wants an answer to each.
func (s *suite) apply(ops ...driver.Op) []driver.Reply {
	s.t.Helper()
	replies, err := apply(s.t, s.store, ops)
	if err != nil {
		s.t.Fatal(err)
	}
	return replies
}

func apply(t *testing.T, store driver.Store, ops []driver.Op) ([]driver.Reply, error) {
	replies, err := store.Apply(t.Context(), ops)
	if err != nil {
		return nil, fmt.Errorf("Apply(%d ops): %w", len(ops), err)
	}
	if len(replies) != len(ops) {
		return nil, fmt.Errorf("Apply(%d ops): got %d replies, want one for each", len(ops), len(replies))
	}
	for i, reply := range replies {
		if reply.Err != nil {
			return nil, fmt.Errorf("reply %d of Apply, to %v: %w", i, ops[i].Kind, reply.Err)
		}
	}
	if r, ok := store.(driver.Recycler); ok {
		own := slices.Clone(replies)
		r.Recycle(replies)
		return own, nil
	}
	return replies, nil
}

// want applies op alone, wants the status, and returns the record.
func (s *suite) want(op driver.Op, status driver.Status) driver.Record {
	s.t.Helper()
	reply := s.apply(op)[0]
	if reply.Status != status {
		s.t.Fatalf("%v: got status %v, want %v (record %+v)", op.Kind, reply.Status, status, reply.Record)
	}
	return reply.Record
}

// same wants the two records to be equal.
func (s *suite) same(what string, got, want driver.Record) {
	s.t.Helper()
	if err := diff(got, want, s.now()); err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
}

// granted makes a claim of a new key and returns the record of it.
func (s *suite) granted() (driver.ID, driver.Record) {
	s.t.Helper()
	id := s.id()
	return id, s.want(claim(id, 1), driver.StatusGranted)
}

// diff names the fields in which two records differ at the store's time now. A
// nil Result is an empty one; when a lease ended that is over does not matter.
func diff(got, want driver.Record, now time.Time) error {
	var wrong []string
	add := func(equal bool, field string, got, want any) {
		if !equal {
			wrong = append(wrong, fmt.Sprintf("%s: got %v, want %v", field, got, want))
		}
	}
	add(got.State == want.State, "State", got.State, want.State)
	add(got.Token == want.Token, "Token", got.Token, want.Token)
	add(got.Nonce == want.Nonce, "Nonce", got.Nonce, want.Nonce)
	add(got.Attempt == want.Attempt, "Attempt", got.Attempt, want.Attempt)
	add(got.Ambiguous == want.Ambiguous, "Ambiguous", got.Ambiguous, want.Ambiguous)
	ended := !got.LeaseEnd.After(now) && !want.LeaseEnd.After(now)
	add(got.LeaseEnd.Equal(want.LeaseEnd) || ended, "LeaseEnd", got.LeaseEnd, want.LeaseEnd)
	add(got.Expires.Equal(want.Expires), "Expires", got.Expires, want.Expires)
	add(got.FirstSeen.Equal(want.FirstSeen), "FirstSeen", got.FirstSeen, want.FirstSeen)
	add(got.First == want.First, "First", got.First, want.First)
	add(got.Fingerprint == want.Fingerprint, "Fingerprint", got.Fingerprint, want.Fingerprint)
	add(got.Tag == want.Tag, "Tag", got.Tag, want.Tag)
	add(got.Held == want.Held, "Held", got.Held, want.Held)
	add(bytes.Equal(got.Note, want.Note), "Note", short(got.Note), short(want.Note))
	add(bytes.Equal(got.Result, want.Result), "Result", short(got.Result), short(want.Result))
	add(got.Omitted == want.Omitted, "Omitted", got.Omitted, want.Omitted)
	if wrong == nil {
		return nil
	}
	return errors.New(strings.Join(wrong, "; "))
}

func short(b []byte) string {
	if len(b) > 32 {
		return fmt.Sprintf("%q... (%d bytes)", b[:32], len(b))
	}
	return fmt.Sprintf("%q", b)
}

func claim(id driver.ID, nonce uint64) driver.Op {
	return driver.Op{Kind: driver.OpClaim, ID: id, Nonce: nonce, Lease: lease, TTL: ttl, Fingerprint: fingerprint, Position: position}
}

func extend(id driver.ID, token driver.Token) driver.Op {
	return driver.Op{Kind: driver.OpExtend, ID: id, Token: token, Lease: lease, TTL: ttl}
}

// settle is a complete or a park.
func settle(kind driver.OpKind, id driver.ID, token driver.Token, result string) driver.Op {
	return driver.Op{Kind: kind, ID: id, Token: token, TTL: ttl, Fingerprint: fingerprint, Position: position, Result: []byte(result)}
}

func complete(id driver.ID, token driver.Token, result string) driver.Op {
	return settle(driver.OpComplete, id, token, result)
}

func park(id driver.ID, token driver.Token, reason string) driver.Op {
	return settle(driver.OpPark, id, token, reason)
}

func unpark(id driver.ID) driver.Op { return driver.Op{Kind: driver.OpUnpark, ID: id, TTL: ttl} }

// noted returns the claim or extend with a note.
func noted(op driver.Op, note string) driver.Op {
	op.Note = []byte(note)
	return op
}

func release(id driver.ID, token driver.Token) driver.Op {
	return driver.Op{Kind: driver.OpRelease, ID: id, Token: token, TTL: ttl}
}
