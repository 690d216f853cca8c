package storetest

import (
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// outcomes returns the state of a record that an op of the kind settled, and the
// answer to claims of it.
func outcomes(kind driver.OpKind) (driver.State, driver.Status) {
	if kind == driver.OpPark {
		return driver.StateParked, driver.StatusParked
	}
	return driver.StateDone, driver.StatusDone
}

// settledAs returns a function of the record that r becomes.
func settledAs(state driver.State) func(s *suite, r driver.Record, result string) driver.Record {
	return func(s *suite, r driver.Record, result string) driver.Record {
		r.State, r.Nonce, r.Ambiguous, r.Result = state, 0, false, []byte(result)
		r.Expires = s.now().Add(ttl)
		return dropLease(r)
	}
}

// settleRules are the rules that complete and park share.
func settleRules(kind driver.OpKind) []rule {
	state, answer := outcomes(kind)
	other := driver.OpPark
	if kind == driver.OpPark {
		other = driver.OpComplete
	}
	settled := settledAs(state)
	return append([]rule{
		{"claimed", func(s *suite) {
			id, r := s.granted()
			s.advance(tick)
			got := s.want(settle(kind, id, r.Token, "result"), driver.StatusOK)
			s.same("settled", got, settled(s, r, "result"))
			s.same("answer", s.want(claim(id, 2), answer), got)
		}},
		{"after its lease ended", func(s *suite) {
			id, r := s.granted()
			s.advance(lease + tick)
			s.same("settled", s.want(settle(kind, id, r.Token, "late"), driver.StatusOK), settled(s, r, "late"))
		}},
		{"after a release by the same token", func(s *suite) {
			id, r := s.granted()
			r = s.want(release(id, r.Token), driver.StatusOK)
			s.same("settled", s.want(settle(kind, id, r.Token, "late"), driver.StatusOK), settled(s, r, "late"))
		}},
		{"without a record", func(s *suite) {
			op := settle(kind, s.id(), 77, "result")
			got := s.want(op, driver.StatusOK)
			s.same("settled", got, driver.Record{
				State: state, Token: 77, Expires: s.now().Add(ttl),
				FirstSeen: s.now(), First: position, Fingerprint: fingerprint, Result: []byte("result"),
			})
			s.same("answer", s.want(claim(op.ID, 1), answer), got)
		}},
		{"after the record expired", func(s *suite) {
			id, r := s.granted()
			s.advance(lease + ttl)
			got := s.want(settle(kind, id, r.Token, "late"), driver.StatusOK)
			s.same("settled", got, driver.Record{
				State: state, Token: r.Token, Expires: s.now().Add(ttl),
				FirstSeen: s.now(), First: position, Fingerprint: fingerprint, Result: []byte("late"),
			})
		}},
		{"another token holds the key", func(s *suite) {
			id, r := s.granted()
			s.advance(lease)
			next := s.want(claim(id, 2), driver.StatusGranted)
			s.same("refused", s.want(settle(kind, id, r.Token, "late"), driver.StatusLost), next)
			s.same("the holder's lease", s.want(extend(id, next.Token), driver.StatusOK), next)
		}},
		{"another token released the key", func(s *suite) {
			id, r := s.granted()
			s.advance(lease)
			next := s.want(claim(id, 2), driver.StatusGranted)
			next = s.want(release(id, next.Token), driver.StatusOK)
			s.same("refused", s.want(settle(kind, id, r.Token, "late"), driver.StatusLost), next)
		}},
		{"another token settled the key", func(s *suite) {
			for _, by := range []driver.OpKind{kind, other} {
				id, r := s.granted()
				s.advance(lease)
				next := s.want(claim(id, 2), driver.StatusGranted)
				next = s.want(settle(by, id, next.Token, "first"), driver.StatusOK)
				s.same("refused", s.want(settle(kind, id, r.Token, "late"), driver.StatusLost), next)
			}
		}},
		{"retried gives what was recorded", func(s *suite) {
			id, r := s.granted()
			want := s.want(settle(kind, id, r.Token, "first"), driver.StatusOK)
			s.advance(tick)
			retry := settle(kind, id, r.Token, "second")
			retry.Omitted = true
			s.same("retried", s.want(retry, driver.StatusOK), want)
			s.same("answer", s.want(claim(id, 2), answer), want)
		}},
		{"settled otherwise by the same token", func(s *suite) {
			id, r := s.granted()
			want := s.want(settle(other, id, r.Token, "first"), driver.StatusOK)
			s.same("the first stands", s.want(settle(kind, id, r.Token, "second"), driver.StatusOK), want)
		}},
		{"omitted result", func(s *suite) {
			id, r := s.granted()
			op := settle(kind, id, r.Token, "")
			op.Result, op.Omitted = nil, true
			want := settled(s, r, "")
			want.Omitted = true
			s.same("settled", s.want(op, driver.StatusOK), want)
			s.same("answer", s.want(claim(id, 2), answer), want)
		}},
	}, keepRules(kind)...)
}

// keepRules are the rules of what complete and park keep of a record.
func keepRules(kind driver.OpKind) []rule {
	state, answer := outcomes(kind)
	settled := settledAs(state)
	return []rule{
		{"ambiguous is kept by a park and cleared by a complete, attempts are kept", func(s *suite) {
			parks := kind == driver.OpPark
			id, _ := s.granted()
			s.advance(lease)
			r := s.want(claim(id, 2), driver.StatusGranted)
			got := s.want(settle(kind, id, r.Token, "result"), driver.StatusOK)
			if got.Ambiguous != parks || got.Attempt != 1 {
				s.t.Errorf("got Ambiguous %t, Attempt %d, want %t and 1", got.Ambiguous, got.Attempt, parks)
			}
			s.same("answer", s.want(claim(id, 3), answer), got)

			for _, bring := range []func(driver.ID, driver.Token){
				func(driver.ID, driver.Token) {},
				func(id driver.ID, token driver.Token) { s.want(release(id, token), driver.StatusOK) },
				func(driver.ID, driver.Token) { s.advance(lease + ttl) }, // then there is no record
			} {
				id, r := s.granted()
				bring(id, r.Token)
				op := settle(kind, id, r.Token, "result")
				op.Ambiguous = true
				if got := s.want(op, driver.StatusOK); got.Ambiguous != parks {
					s.t.Errorf("the last run may have had its effect: got Ambiguous %t, want %t", got.Ambiguous, parks)
				}
			}
		}},
		{"drops the claim's note and position, keeps the tag", func(s *suite) {
			id := s.id()
			op := noted(claim(id, 1), "note")
			op.Tag, op.Position = tag, elsewhere
			r := s.want(op, driver.StatusGranted)
			got := s.want(settle(kind, id, r.Token, "result"), driver.StatusOK)
			s.same("settled", got, settled(s, r, "result"))
			op.Nonce = 2
			s.same("answer", s.want(op, answer), got)
			if got.Tag != tag || got.Note != nil || got.Held != (driver.Position{}) {
				s.t.Errorf("got tag %d, note %q, held %v, want %d and none", got.Tag, got.Note, got.Held, tag)
			}
		}},
		{"without a record, with a tag", func(s *suite) {
			op := settle(kind, s.id(), 77, "result")
			op.Tag = tag
			if got := s.want(op, driver.StatusOK); got.Tag != tag || got.Fingerprint != fingerprint {
				s.t.Errorf("got fingerprint %x with tag %d, want %x with %d", got.Fingerprint, got.Tag, fingerprint, tag)
			}
			op.ID, op.Fingerprint = s.id(), driver.Fingerprint{}
			if got := s.want(op, driver.StatusOK); got.Tag != 0 {
				s.t.Errorf("without a fingerprint: got tag %d, want none", got.Tag)
			}
		}},
	}
}
