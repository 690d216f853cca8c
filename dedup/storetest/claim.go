package storetest

import (
	"github.com/oncequeue/oncequeue/dedup/driver"
)

var claimRules = []rule{
	{"free", func(s *suite) {
		id := s.id()
		got := s.want(claim(id, 7), driver.StatusGranted)
		if got.Token == 0 {
			s.t.Errorf("Token: got 0, want a token")
		}
		s.same("granted", got, driver.Record{
			State: driver.StateClaimed, Token: got.Token, Nonce: 7,
			LeaseEnd: s.now().Add(lease), Expires: s.now().Add(lease + ttl),
			FirstSeen: s.now(), First: position, Fingerprint: fingerprint, Held: position,
		})
	}},
	{"released", func(s *suite) {
		id, first := s.granted()
		released := s.want(release(id, first.Token), driver.StatusOK)
		s.advance(tick)
		again := claim(id, 2)
		again.Position = elsewhere
		got := s.want(again, driver.StatusGranted)
		want := released
		want.State, want.Token, want.Nonce, want.Held = driver.StateClaimed, got.Token, 2, elsewhere
		want.LeaseEnd, want.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
		s.same("granted", got, want)
		if got.Token <= first.Token {
			s.t.Errorf("Token: got %d, want more than the released claim's %d", got.Token, first.Token)
		}
	}},
	{"held", func(s *suite) {
		id, holder := s.granted()
		s.same("held", s.want(claim(id, 2), driver.StatusHeld), holder)
		s.advance(lease - tick)
		s.same("held until the lease ends", s.want(claim(id, 2), driver.StatusHeld), holder)
	}},
	{"same nonce", func(s *suite) {
		id, first := s.granted()
		s.advance(lease - tick)
		s.same("the same claim again", s.want(claim(id, first.Nonce), driver.StatusGranted), first)
		s.advance(tick)
		got := s.want(claim(id, 2), driver.StatusGranted)
		if !got.Ambiguous {
			s.t.Errorf("take-over after a repeated claim: not Ambiguous, want the lease not prolonged and the take-over flagged")
		}
	}},
	{"ended lease", func(s *suite) { takeOver(s, 2) }},
	{"ended lease, own nonce", func(s *suite) { takeOver(s, 1) }},
	{"done", func(s *suite) {
		id, r := s.granted()
		done := s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.same("answer", s.want(claim(id, 2), driver.StatusDone), done)
		s.same("answer to the nonce that ran", s.want(claim(id, r.Nonce), driver.StatusDone), done)
	}},
	{"parked", func(s *suite) {
		id, r := s.granted()
		parked := s.want(park(id, r.Token, "reason"), driver.StatusOK)
		s.same("answer", s.want(claim(id, 2), driver.StatusParked), parked)
		s.same("answer to the nonce that ran", s.want(claim(id, r.Nonce), driver.StatusParked), parked)
	}},
	{"conflict before all else", func(s *suite) {
		for _, state := range []struct {
			name  string
			bring func(id driver.ID, r driver.Record) driver.Record
		}{
			{"claimed", func(_ driver.ID, r driver.Record) driver.Record { return r }},
			{"released", func(id driver.ID, r driver.Record) driver.Record {
				return s.want(release(id, r.Token), driver.StatusOK)
			}},
			{"done", func(id driver.ID, r driver.Record) driver.Record {
				return s.want(complete(id, r.Token, "result"), driver.StatusOK)
			}},
			{"parked", func(id driver.ID, r driver.Record) driver.Record {
				return s.want(park(id, r.Token, "reason"), driver.StatusOK)
			}},
			{"claimed, lease ended", func(_ driver.ID, r driver.Record) driver.Record {
				s.advance(lease)
				return r
			}},
		} {
			id, r := s.granted()
			r = state.bring(id, r)
			for _, nonce := range []uint64{1, 2} {
				op := claim(id, nonce)
				op.Fingerprint, op.Position = otherPrint, elsewhere
				s.same(state.name, s.want(op, driver.StatusConflict), r)
			}
		}
	}},
	{"zero fingerprint is not compared", func(s *suite) {
		id, r := s.granted()
		none := claim(id, 2)
		none.Fingerprint = driver.Fingerprint{}
		s.same("claim without", s.want(none, driver.StatusHeld), r)

		none.ID = s.id()
		r = s.want(none, driver.StatusGranted)
		s.same("record without", s.want(claim(none.ID, 3), driver.StatusHeld), r)

		s.want(release(none.ID, r.Token), driver.StatusOK)
		got := s.want(claim(none.ID, 3), driver.StatusGranted)
		if got.Fingerprint != fingerprint {
			s.t.Errorf("a record without a fingerprint: got %x after the grant, want the claim's %x", got.Fingerprint, fingerprint)
		}
	}},
	{"fingerprints with different tags are not compared", func(s *suite) {
		tagged := func(id driver.ID, nonce uint64) driver.Op {
			op := claim(id, nonce)
			op.Fingerprint, op.Tag = otherPrint, tag
			return op
		}
		for _, bring := range []func(id driver.ID, r driver.Record) (driver.Record, driver.Status){
			func(_ driver.ID, r driver.Record) (driver.Record, driver.Status) { return r, driver.StatusHeld },
			func(id driver.ID, r driver.Record) (driver.Record, driver.Status) {
				return s.want(complete(id, r.Token, "result"), driver.StatusOK), driver.StatusDone
			},
			func(id driver.ID, r driver.Record) (driver.Record, driver.Status) {
				return s.want(park(id, r.Token, "reason"), driver.StatusOK), driver.StatusParked
			},
		} {
			id, r := s.granted()
			r, status := bring(id, r)
			s.same("claim with another tag", s.want(tagged(id, 2), status), r)

			id = s.id()
			r = s.want(tagged(id, 1), driver.StatusGranted)
			if r.Tag != tag || r.Fingerprint != otherPrint {
				s.t.Errorf("granted: got fingerprint %x with tag %d, want %x with %d", r.Fingerprint, r.Tag, otherPrint, tag)
			}
			r, status = bring(id, r)
			s.same("claim without a tag", s.want(claim(id, 2), status), r)
			op := claim(id, 2)
			op.Tag = tag
			s.same("claim with the tag", s.want(op, driver.StatusConflict), r)
		}
	}},
	{"a grant takes a fingerprint with another tag over", func(s *suite) {
		for _, free := range []func(id driver.ID, r driver.Record){
			func(id driver.ID, r driver.Record) { s.want(release(id, r.Token), driver.StatusOK) },
			func(driver.ID, driver.Record) { s.advance(lease) },
		} {
			id, r := s.granted()
			free(id, r)
			op := claim(id, 2)
			op.Fingerprint, op.Tag = otherPrint, tag
			if got := s.want(op, driver.StatusGranted); got.Fingerprint != otherPrint || got.Tag != tag || got.First != position {
				s.t.Errorf("got fingerprint %x with tag %d, first %v, want %x with %d, %v", got.Fingerprint, got.Tag, got.First, otherPrint, tag, position)
			}
			op.Fingerprint, op.Nonce = fingerprint, 3
			s.want(op, driver.StatusConflict)

			id, r = s.granted()
			free(id, r)
			op = claim(id, 2)
			op.Fingerprint, op.Tag = driver.Fingerprint{}, tag
			if got := s.want(op, driver.StatusGranted); got.Fingerprint != fingerprint || got.Tag != 0 {
				s.t.Errorf("a claim without a fingerprint: got %x with tag %d, want the record's %x with none", got.Fingerprint, got.Tag, fingerprint)
			}
		}
	}},
	{"held names the message that holds it", func(s *suite) {
		id, r := s.granted()
		s.want(release(id, r.Token), driver.StatusOK)
		op := claim(id, 2)
		op.Position = elsewhere
		s.want(op, driver.StatusGranted)
		got := s.want(claim(id, 3), driver.StatusHeld)
		if got.Held != elsewhere || got.First != position {
			s.t.Errorf("got held %v, first %v, want %v and %v", got.Held, got.First, elsewhere, position)
		}
		op.Position = position // a retry of the claim, and its first word counts
		if got := s.want(op, driver.StatusGranted); got.Held != elsewhere {
			s.t.Errorf("the claim repeated: got held %v, want %v", got.Held, elsewhere)
		}
	}},
	{"ambiguous in every grant", func(s *suite) {
		id, r := s.granted()
		maybe := release(id, r.Token)
		maybe.Ambiguous = true
		s.want(maybe, driver.StatusOK)
		for nonce := uint64(2); nonce < 5; nonce++ {
			r = s.want(claim(id, nonce), driver.StatusGranted)
			if !r.Ambiguous {
				s.t.Fatalf("grant %d: not Ambiguous, want what the first run left", nonce)
			}
			if again := s.want(claim(id, nonce), driver.StatusGranted); !again.Ambiguous {
				s.t.Fatalf("grant %d, repeated: not Ambiguous", nonce)
			}
			s.want(release(id, r.Token), driver.StatusOK)
		}
	}},
}

func takeOver(s *suite, nonce uint64) {
	s.t.Helper()
	id, first := s.granted()
	s.advance(lease)
	op := claim(id, nonce)
	op.Position = elsewhere
	got := s.want(op, driver.StatusGranted)
	want := first
	want.Token, want.Nonce, want.Held = got.Token, nonce, elsewhere
	want.Attempt, want.Ambiguous = 1, true
	want.LeaseEnd, want.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
	s.same("granted", got, want)
	if got.Token <= first.Token {
		s.t.Errorf("Token: got %d, want more than the first claim's %d", got.Token, first.Token)
	}
}
