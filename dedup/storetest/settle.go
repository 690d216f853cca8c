package storetest

import "github.com/oncequeue/oncequeue/dedup"

// settleRules are the rules that complete and park share.
func settleRules(kind dedup.OpKind) []rule {
	state, answer := dedup.StateDone, dedup.StatusDone
	other := dedup.OpPark
	if kind == dedup.OpPark {
		state, answer, other = dedup.StateParked, dedup.StatusParked, dedup.OpComplete
	}
	// settled returns the record that r becomes.
	settled := func(s *suite, r dedup.Record, result string) dedup.Record {
		r.State, r.Nonce, r.Ambiguous, r.Result = state, 0, false, []byte(result)
		r.Expires = s.now().Add(ttl)
		return dropLease(r)
	}
	return []rule{
		{"claimed", func(s *suite) {
			id, r := s.granted()
			s.advance(tick)
			got := s.want(settle(kind, id, r.Token, "result"), dedup.StatusOK)
			s.same("settled", got, settled(s, r, "result"))
			s.same("answer", s.want(claim(id, 2), answer), got)
		}},
		{"after its lease ended", func(s *suite) {
			id, r := s.granted()
			s.advance(lease + tick)
			s.same("settled", s.want(settle(kind, id, r.Token, "late"), dedup.StatusOK), settled(s, r, "late"))
		}},
		{"after a release by the same token", func(s *suite) {
			id, r := s.granted()
			r = s.want(release(id, r.Token), dedup.StatusOK)
			s.same("settled", s.want(settle(kind, id, r.Token, "late"), dedup.StatusOK), settled(s, r, "late"))
		}},
		{"without a record", func(s *suite) {
			op := settle(kind, s.id(), 77, "result")
			got := s.want(op, dedup.StatusOK)
			s.same("settled", got, dedup.Record{
				State: state, Token: 77, Expires: s.now().Add(ttl),
				FirstSeen: s.now(), First: position, Fingerprint: fingerprint, Result: []byte("result"),
			})
			s.same("answer", s.want(claim(op.ID, 1), answer), got)
		}},
		{"after the record expired", func(s *suite) {
			id, r := s.granted()
			s.advance(lease + ttl)
			got := s.want(settle(kind, id, r.Token, "late"), dedup.StatusOK)
			s.same("settled", got, dedup.Record{
				State: state, Token: r.Token, Expires: s.now().Add(ttl),
				FirstSeen: s.now(), First: position, Fingerprint: fingerprint, Result: []byte("late"),
			})
		}},
		{"another token holds the key", func(s *suite) {
			id, r := s.granted()
			s.advance(lease)
			next := s.want(claim(id, 2), dedup.StatusGranted)
			s.same("refused", s.want(settle(kind, id, r.Token, "late"), dedup.StatusLost), next)
			s.same("the holder's lease", s.want(extend(id, next.Token), dedup.StatusOK), next)
		}},
		{"another token released the key", func(s *suite) {
			id, r := s.granted()
			s.advance(lease)
			next := s.want(claim(id, 2), dedup.StatusGranted)
			next = s.want(release(id, next.Token), dedup.StatusOK)
			s.same("refused", s.want(settle(kind, id, r.Token, "late"), dedup.StatusLost), next)
		}},
		{"another token settled the key", func(s *suite) {
			for _, by := range []dedup.OpKind{kind, other} {
				id, r := s.granted()
				s.advance(lease)
				next := s.want(claim(id, 2), dedup.StatusGranted)
				next = s.want(settle(by, id, next.Token, "first"), dedup.StatusOK)
				s.same("refused", s.want(settle(kind, id, r.Token, "late"), dedup.StatusLost), next)
			}
		}},
		{"retried gives what was recorded", func(s *suite) {
			id, r := s.granted()
			want := s.want(settle(kind, id, r.Token, "first"), dedup.StatusOK)
			s.advance(tick)
			retry := settle(kind, id, r.Token, "second")
			retry.Omitted = true
			s.same("retried", s.want(retry, dedup.StatusOK), want)
			s.same("answer", s.want(claim(id, 2), answer), want)
		}},
		{"settled otherwise by the same token", func(s *suite) {
			id, r := s.granted()
			want := s.want(settle(other, id, r.Token, "first"), dedup.StatusOK)
			s.same("the first stands", s.want(settle(kind, id, r.Token, "second"), dedup.StatusOK), want)
		}},
		{"clears ambiguous, keeps attempts", func(s *suite) {
			id, _ := s.granted()
			s.advance(lease)
			r := s.want(claim(id, 2), dedup.StatusGranted)
			got := s.want(settle(kind, id, r.Token, "result"), dedup.StatusOK)
			if got.Ambiguous || got.Attempt != 1 {
				s.t.Errorf("got Ambiguous %t, Attempt %d, want false and 1", got.Ambiguous, got.Attempt)
			}
		}},
		{"omitted result", func(s *suite) {
			id, r := s.granted()
			op := settle(kind, id, r.Token, "")
			op.Result, op.Omitted = nil, true
			want := settled(s, r, "")
			want.Omitted = true
			s.same("settled", s.want(op, dedup.StatusOK), want)
			s.same("answer", s.want(claim(id, 2), answer), want)
		}},
	}
}
