package storetest

import "github.com/oncequeue/oncequeue/dedup"

var claimRules = []rule{
	{"free", func(s *suite) {
		id := s.id()
		got := s.want(claim(id, 7), dedup.StatusGranted)
		if got.Token == 0 {
			s.t.Errorf("Token: got 0, want a token")
		}
		s.same("granted", got, dedup.Record{
			State: dedup.StateClaimed, Token: got.Token, Nonce: 7,
			LeaseEnd: s.now().Add(lease), Expires: s.now().Add(lease + ttl),
			FirstSeen: s.now(), First: position, Fingerprint: fingerprint,
		})
	}},
	{"released", func(s *suite) {
		id, first := s.granted()
		released := s.want(release(id, first.Token), dedup.StatusOK)
		s.advance(tick)
		again := claim(id, 2)
		again.Position = elsewhere
		got := s.want(again, dedup.StatusGranted)
		want := released
		want.State, want.Token, want.Nonce = dedup.StateClaimed, got.Token, 2
		want.LeaseEnd, want.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
		s.same("granted", got, want)
		if got.Token <= first.Token {
			s.t.Errorf("Token: got %d, want more than the released claim's %d", got.Token, first.Token)
		}
	}},
	{"held", func(s *suite) {
		id, holder := s.granted()
		s.same("held", s.want(claim(id, 2), dedup.StatusHeld), holder)
		s.advance(lease - tick)
		s.same("held until the lease ends", s.want(claim(id, 2), dedup.StatusHeld), holder)
	}},
	{"same nonce", func(s *suite) {
		id, first := s.granted()
		s.advance(lease - tick)
		s.same("the same claim again", s.want(claim(id, first.Nonce), dedup.StatusGranted), first)
		s.advance(tick)
		got := s.want(claim(id, 2), dedup.StatusGranted)
		if !got.Ambiguous {
			s.t.Errorf("take-over after a repeated claim: not Ambiguous, want the lease not prolonged and the take-over flagged")
		}
	}},
	{"ended lease", func(s *suite) { takeOver(s, 2) }},
	{"ended lease, own nonce", func(s *suite) { takeOver(s, 1) }},
	{"done", func(s *suite) {
		id, r := s.granted()
		done := s.want(complete(id, r.Token, "result"), dedup.StatusOK)
		s.same("answer", s.want(claim(id, 2), dedup.StatusDone), done)
		s.same("answer to the nonce that ran", s.want(claim(id, r.Nonce), dedup.StatusDone), done)
	}},
	{"parked", func(s *suite) {
		id, r := s.granted()
		parked := s.want(park(id, r.Token, "reason"), dedup.StatusOK)
		s.same("answer", s.want(claim(id, 2), dedup.StatusParked), parked)
		s.same("answer to the nonce that ran", s.want(claim(id, r.Nonce), dedup.StatusParked), parked)
	}},
	{"conflict before all else", func(s *suite) {
		for _, state := range []struct {
			name  string
			bring func(id dedup.ID, r dedup.Record) dedup.Record
		}{
			{"claimed", func(_ dedup.ID, r dedup.Record) dedup.Record { return r }},
			{"released", func(id dedup.ID, r dedup.Record) dedup.Record {
				return s.want(release(id, r.Token), dedup.StatusOK)
			}},
			{"done", func(id dedup.ID, r dedup.Record) dedup.Record {
				return s.want(complete(id, r.Token, "result"), dedup.StatusOK)
			}},
			{"parked", func(id dedup.ID, r dedup.Record) dedup.Record {
				return s.want(park(id, r.Token, "reason"), dedup.StatusOK)
			}},
			{"claimed, lease ended", func(_ dedup.ID, r dedup.Record) dedup.Record {
				s.advance(lease)
				return r
			}},
		} {
			id, r := s.granted()
			r = state.bring(id, r)
			for _, nonce := range []uint64{1, 2} {
				op := claim(id, nonce)
				op.Fingerprint, op.Position = otherPrint, elsewhere
				s.same(state.name, s.want(op, dedup.StatusConflict), r)
			}
		}
	}},
	{"zero fingerprint is not compared", func(s *suite) {
		id, r := s.granted()
		none := claim(id, 2)
		none.Fingerprint = dedup.Fingerprint{}
		s.same("claim without", s.want(none, dedup.StatusHeld), r)

		none.ID = s.id()
		r = s.want(none, dedup.StatusGranted)
		s.same("record without", s.want(claim(none.ID, 3), dedup.StatusHeld), r)

		s.want(release(none.ID, r.Token), dedup.StatusOK)
		got := s.want(claim(none.ID, 3), dedup.StatusGranted)
		if got.Fingerprint != fingerprint {
			s.t.Errorf("a record without a fingerprint: got %x after the grant, want the claim's %x", got.Fingerprint, fingerprint)
		}
	}},
	{"ambiguous in every grant", func(s *suite) {
		id, r := s.granted()
		maybe := release(id, r.Token)
		maybe.Ambiguous = true
		s.want(maybe, dedup.StatusOK)
		for nonce := uint64(2); nonce < 5; nonce++ {
			r = s.want(claim(id, nonce), dedup.StatusGranted)
			if !r.Ambiguous {
				s.t.Fatalf("grant %d: not Ambiguous, want what the first run left", nonce)
			}
			if again := s.want(claim(id, nonce), dedup.StatusGranted); !again.Ambiguous {
				s.t.Fatalf("grant %d, repeated: not Ambiguous", nonce)
			}
			s.want(release(id, r.Token), dedup.StatusOK)
		}
	}},
}

func takeOver(s *suite, nonce uint64) {
	s.t.Helper()
	id, first := s.granted()
	s.advance(lease)
	got := s.want(claim(id, nonce), dedup.StatusGranted)
	want := first
	want.Token, want.Nonce = got.Token, nonce
	want.Attempt, want.Ambiguous = 1, true
	want.LeaseEnd, want.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
	s.same("granted", got, want)
	if got.Token <= first.Token {
		s.t.Errorf("Token: got %d, want more than the first claim's %d", got.Token, first.Token)
	}
}
