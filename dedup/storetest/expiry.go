package storetest

import (
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var expiryRules = []rule{
	{"done", func(s *suite) { forgottenAfter(s, ttl, settleTo(driver.OpComplete), driver.StatusDone) }},
	{"parked", func(s *suite) { forgottenAfter(s, ttl, settleTo(driver.OpPark), driver.StatusParked) }},
	{"settled without a record", func(s *suite) {
		settle := func(s *suite, id driver.ID, r driver.Record) {
			s.advance(lease + ttl) // the claim's record is gone
			s.want(complete(id, r.Token, "late"), driver.StatusOK)
		}
		forgottenAfter(s, ttl, settle, driver.StatusDone)
	}},
	{"released", func(s *suite) {
		id, r := s.granted()
		s.want(release(id, r.Token), driver.StatusOK)
		s.advance(ttl - tick)
		r = s.want(claim(id, 2), driver.StatusGranted)
		if r.Attempt != 1 {
			s.t.Errorf("Attempt before the TTL passed: got %d, want 1", r.Attempt)
		}
		s.want(release(id, r.Token), driver.StatusOK)
		s.advance(ttl)
		s.fresh(id, r.Token)
	}},
	{"a claim outlives its lease by the TTL", func(s *suite) {
		id, r := s.granted()
		s.advance(lease + ttl - tick)
		got := s.want(claim(id, 2), driver.StatusGranted)
		if !got.Ambiguous || got.Token <= r.Token {
			s.t.Errorf("take-over: got Ambiguous %t, token %d, want true and more than %d", got.Ambiguous, got.Token, r.Token)
		}
		s.advance(lease + ttl)
		s.fresh(id, got.Token)
	}},
	{"an extended claim too", func(s *suite) {
		id, r := s.granted()
		s.advance(lease - tick)
		s.want(extend(id, r.Token), driver.StatusOK)
		s.advance(lease + ttl - tick)
		if got := s.want(claim(id, 2), driver.StatusGranted); !got.Ambiguous {
			s.t.Errorf("take-over: not Ambiguous, want the extended claim remembered")
		}
	}},
	{"each op's own TTL", func(s *suite) {
		id, r := s.granted()
		op := complete(id, r.Token, "result")
		op.TTL = 3 * tick
		s.want(op, driver.StatusOK)
		s.advance(2 * tick)
		s.want(claim(id, 2), driver.StatusDone)
		s.advance(tick)
		s.fresh(id, r.Token)

		id, r = s.granted()
		op = complete(id, r.Token, "result")
		op.TTL = 30 * 24 * time.Hour
		s.want(op, driver.StatusOK)
		s.advance(op.TTL - tick)
		s.want(claim(id, 2), driver.StatusDone)
		s.advance(tick)
		s.fresh(id, r.Token)
	}},
	{"asking does not prolong", func(s *suite) {
		id, r := s.granted()
		done := s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.advance(ttl - tick)
		s.same("duplicate", s.want(claim(id, 2), driver.StatusDone), done)
		s.same("retried", s.want(complete(id, r.Token, "result"), driver.StatusOK), done)
		s.advance(tick)
		s.fresh(id, r.Token)
	}},
	{"an expired record is none", func(s *suite) {
		id, r := s.granted()
		s.advance(lease + ttl)
		s.same("extend", s.want(extend(id, r.Token), driver.StatusLost), driver.Record{})
		s.same("release", s.want(release(id, r.Token), driver.StatusLost), driver.Record{})
		s.fresh(id, r.Token)
	}},
}

// settleTo settles a claim.
func settleTo(kind driver.OpKind) func(*suite, driver.ID, driver.Record) {
	return func(s *suite, id driver.ID, r driver.Record) {
		s.t.Helper()
		s.advance(lease / 2) // the TTL counts from here, not from the claim
		s.want(settle(kind, id, r.Token, "result"), driver.StatusOK)
	}
}

// forgottenAfter brings a claimed key into a state that answers with status,
// and wants it to last for just d.
func forgottenAfter(s *suite, d time.Duration, bring func(*suite, driver.ID, driver.Record), status driver.Status) {
	s.t.Helper()
	id, r := s.granted()
	bring(s, id, r)
	s.advance(d - tick)
	s.want(claim(id, 2), status)
	s.advance(tick)
	s.fresh(id, r.Token)
}

// fresh wants a claim of id, even of another payload, to be that of a key never
// seen, except that its token is greater than last.
func (s *suite) fresh(id driver.ID, last driver.Token) {
	s.t.Helper()
	op := claim(id, 9)
	op.Fingerprint, op.Position = otherPrint, elsewhere
	got := s.want(op, driver.StatusGranted)
	s.same("claim of a forgotten key", got, driver.Record{
		State: driver.StateClaimed, Token: got.Token, Nonce: 9,
		LeaseEnd: s.now().Add(lease), Expires: s.now().Add(lease + ttl),
		FirstSeen: s.now(), First: elsewhere, Fingerprint: otherPrint, Held: elsewhere,
	})
	if got.Token <= last {
		s.t.Errorf("Token of a forgotten key: got %d, want more than %d", got.Token, last)
	}
}
