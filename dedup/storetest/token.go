package storetest

import (
	"github.com/oncequeue/oncequeue/dedup/driver"
)

var tokenRules = []rule{
	{"grow at one moment", func(s *suite) {
		id, r := s.granted()
		for nonce := uint64(2); nonce < 50; nonce++ {
			s.want(release(id, r.Token), driver.StatusOK)
			next := s.want(claim(id, nonce), driver.StatusGranted)
			if next.Token <= r.Token {
				s.t.Fatalf("Token of grant %d: got %d, want more than %d", nonce, next.Token, r.Token)
			}
			r = next
		}
	}},
	{"grow across take-over, release and expiry", func(s *suite) {
		id, r := s.granted()
		for i, step := range []func(){
			func() { s.advance(lease) },
			func() { s.want(release(id, r.Token), driver.StatusOK) },
			func() { s.advance(lease + ttl) },
			func() { s.want(complete(id, r.Token, "result"), driver.StatusOK); s.advance(ttl) },
			func() { s.want(park(id, r.Token, "reason"), driver.StatusOK); s.advance(ttl) },
			func() { s.want(release(id, r.Token), driver.StatusOK); s.advance(ttl) },
		} {
			step()
			next := s.want(claim(id, uint64(i+2)), driver.StatusGranted)
			if next.Token <= r.Token {
				s.t.Fatalf("Token after step %d: got %d, want more than %d", i, next.Token, r.Token)
			}
			r = next
		}
	}},
	{"above the floor", func(s *suite) {
		id, r := s.granted()
		s.want(release(id, r.Token), driver.StatusOK)
		op := claim(id, 2)
		op.Floor = r.Token + 1_000_000_000
		r = s.want(op, driver.StatusGranted)
		if r.Token <= op.Floor {
			s.t.Fatalf("Token: got %d, want more than the floor %d", r.Token, op.Floor)
		}
		s.same("repeated", s.want(op, driver.StatusGranted), r)
		s.want(release(id, r.Token), driver.StatusOK)
		next := s.want(claim(id, 3), driver.StatusGranted)
		if next.Token <= r.Token {
			s.t.Errorf("Token of a claim without a floor: got %d, want more than the last, %d", next.Token, r.Token)
		}
	}},
	{"not below the clock", func(s *suite) {
		// So they grow even over a store that lost everything.
		_, r := s.granted()
		if low := driver.Token(s.now().UnixMicro()); r.Token < low {
			s.t.Errorf("Token: got %d, want at least the store's time in microseconds, %d", r.Token, low)
		}
	}},
}
