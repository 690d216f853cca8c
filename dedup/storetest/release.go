package storetest

import (
	"github.com/oncequeue/oncequeue/dedup/driver"
)

var releaseRules = []rule{
	{"counted", func(s *suite) {
		id, r := s.granted()
		s.advance(tick)
		want := r
		want.State, want.Attempt, want.Expires = driver.StateReleased, 1, s.now().Add(ttl)
		got := s.want(release(id, r.Token), driver.StatusOK)
		if !got.LeaseEnd.IsZero() {
			s.t.Errorf("LeaseEnd: got %v, want none", got.LeaseEnd)
		}
		s.same("released", got, dropLease(want))
		if again := s.want(claim(id, 2), driver.StatusGranted); again.Attempt != 1 {
			s.t.Errorf("Attempt in the next grant: got %d, want 1", again.Attempt)
		}
	}},
	{"uncounted", func(s *suite) {
		id, r := s.granted()
		op := release(id, r.Token)
		op.Uncounted = true
		want := r
		want.State, want.Expires = driver.StateReleased, s.now().Add(ttl)
		s.same("released", s.want(op, driver.StatusOK), dropLease(want))
	}},
	{"ambiguous", func(s *suite) {
		for _, uncounted := range []bool{false, true} {
			id, r := s.granted()
			op := release(id, r.Token)
			op.Ambiguous, op.Uncounted = true, uncounted
			if got := s.want(op, driver.StatusOK); !got.Ambiguous {
				s.t.Errorf("uncounted %t: not Ambiguous, want what the release said", uncounted)
			}
		}
	}},
	{"ambiguous is sticky", func(s *suite) {
		id, _ := s.granted()
		s.advance(lease)
		r := s.want(claim(id, 2), driver.StatusGranted)
		for nonce := uint64(3); nonce < 6; nonce++ {
			if got := s.want(release(id, r.Token), driver.StatusOK); !got.Ambiguous {
				s.t.Fatalf("release %d after a take-over: not Ambiguous", nonce-2)
			}
			r = s.want(claim(id, nonce), driver.StatusGranted)
		}
	}},
	{"after its lease ended", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		got := s.want(release(id, r.Token), driver.StatusOK)
		if got.Ambiguous || got.Attempt != 1 {
			s.t.Errorf("got Ambiguous %t, Attempt %d, want false and 1: the holder itself says how it ended", got.Ambiguous, got.Attempt)
		}
	}},
	{"retried", func(s *suite) {
		id, r := s.granted()
		want := s.want(release(id, r.Token), driver.StatusOK)
		s.advance(tick)
		s.same("lost", s.want(release(id, r.Token), driver.StatusLost), want)
	}},
	{"another token", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		next := s.want(claim(id, 2), driver.StatusGranted)
		op := release(id, r.Token)
		op.Ambiguous = true
		s.same("lost", s.want(op, driver.StatusLost), next)
		s.same("held", s.want(claim(id, 3), driver.StatusHeld), next)
	}},
	{"not claimed", func(s *suite) {
		id := s.id()
		s.same("no record", s.want(release(id, 1), driver.StatusLost), driver.Record{})
		s.want(claim(id, 1), driver.StatusGranted)

		for _, kind := range []driver.OpKind{driver.OpComplete, driver.OpPark} {
			id, r := s.granted()
			r = s.want(settle(kind, id, r.Token, "result"), driver.StatusOK)
			s.same("settled", s.want(release(id, r.Token), driver.StatusLost), r)
		}
	}},
}

// dropLease takes from r what only a claim has.
func dropLease(r driver.Record) driver.Record {
	none := driver.Record{}
	r.LeaseEnd, r.Held, r.Note = none.LeaseEnd, none.Held, none.Note
	return r
}
