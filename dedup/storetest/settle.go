package storetest

import "github.com/oncequeue/oncequeue/dedup"

// outcomes returns the state of a record that an op of the kind settled, and the
// answer to claims of it.
func outcomes(kind dedup.OpKind) (dedup.State, dedup.Status) {
	if kind == dedup.OpPark {
		return dedup.StateParked, dedup.StatusParked
	}
	return dedup.StateDone, dedup.StatusDone
}

// settledAs returns a function of the record that r becomes.
func settledAs(state dedup.State) func(s *suite, r dedup.Record, result string) dedup.Record {
	return func(s *suite, r dedup.Record, result string) dedup.Record {
		r.State, r.Nonce, r.Ambiguous, r.Result = state, 0, false, []byte(result)
		r.Expires = s.now().Add(ttl)
		return dropLease(r)
	}
}

// settleRules are the rules that complete and park share.
func settleRules(kind dedup.OpKind) []rule {
	state, answer := outcomes(kind)
	other := dedup.OpPark
	if kind == dedup.OpPark {
		other = dedup.OpComplete
	}
	settled := settledAs(state)
	return append([]rule{
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
		{"omitted result", func(s *suite) {
			id, r := s.granted()
			op := settle(kind, id, r.Token, "")
			op.Result, op.Omitted = nil, true
			want := settled(s, r, "")
			want.Omitted = true
			s.same("settled", s.want(op, dedup.StatusOK), want)
			s.same("answer", s.want(claim(id, 2), answer), want)
		}},
	}, keepRules(kind)...)
}

// keepRules are the rules of what complete and park keep of a record.
func keepRules(kind dedup.OpKind) []rule {
	state, answer := outcomes(kind)
	settled := settledAs(state)
	return []rule{
		{"ambiguous is kept by a park and cleared by a complete, attempts are kept", func(s *suite) {
			parks := kind == dedup.OpPark
			id, _ := s.granted()
			s.advance(lease)
			r := s.want(claim(id, 2), dedup.StatusGranted)
			got := s.want(settle(kind, id, r.Token, "result"), dedup.StatusOK)
			if got.Ambiguous != parks || got.Attempt != 1 {
				s.t.Errorf("got Ambiguous %t, Attempt %d, want %t and 1", got.Ambiguous, got.Attempt, parks)
			}
			s.same("answer", s.want(claim(id, 3), answer), got)

			for _, bring := range []func(dedup.ID, dedup.Token){
				func(dedup.ID, dedup.Token) {},
				func(id dedup.ID, token dedup.Token) { s.want(release(id, token), dedup.StatusOK) },
				func(dedup.ID, dedup.Token) { s.advance(lease + ttl) }, // then there is no record
			} {
				id, r := s.granted()
				bring(id, r.Token)
				op := settle(kind, id, r.Token, "result")
				op.Ambiguous = true
				if got := s.want(op, dedup.StatusOK); got.Ambiguous != parks {
					s.t.Errorf("the last run may have had its effect: got Ambiguous %t, want %t", got.Ambiguous, parks)
				}
			}
		}},
		{"drops the claim's note and position, keeps the tag", func(s *suite) {
			id := s.id()
			op := noted(claim(id, 1), "note")
			op.Tag, op.Position = tag, elsewhere
			r := s.want(op, dedup.StatusGranted)
			got := s.want(settle(kind, id, r.Token, "result"), dedup.StatusOK)
			s.same("settled", got, settled(s, r, "result"))
			op.Nonce = 2
			s.same("answer", s.want(op, answer), got)
			if got.Tag != tag || got.Note != nil || got.Held != (dedup.Position{}) {
				s.t.Errorf("got tag %d, note %q, held %v, want %d and none", got.Tag, got.Note, got.Held, tag)
			}
		}},
		{"without a record, with a tag", func(s *suite) {
			op := settle(kind, s.id(), 77, "result")
			op.Tag = tag
			if got := s.want(op, dedup.StatusOK); got.Tag != tag || got.Fingerprint != fingerprint {
				s.t.Errorf("got fingerprint %x with tag %d, want %x with %d", got.Fingerprint, got.Tag, fingerprint, tag)
			}
			op.ID, op.Fingerprint = s.id(), dedup.Fingerprint{}
			if got := s.want(op, dedup.StatusOK); got.Tag != 0 {
				s.t.Errorf("without a fingerprint: got tag %d, want none", got.Tag)
			}
		}},
	}
}
