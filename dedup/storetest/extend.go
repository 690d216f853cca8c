package storetest

import "github.com/oncequeue/oncequeue/dedup"

var extendRules = []rule{
	{"living lease", func(s *suite) {
		id, r := s.granted()
		for range 3 {
			s.advance(lease - tick)
			r.LeaseEnd, r.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
			s.same("extended", s.want(extend(id, r.Token), dedup.StatusOK), r)
			s.same("held", s.want(claim(id, 2), dedup.StatusHeld), r)
		}
		s.advance(lease)
		s.want(claim(id, 2), dedup.StatusGranted)
	}},
	{"can shorten", func(s *suite) {
		id, r := s.granted()
		op := extend(id, r.Token)
		op.Lease = tick
		s.want(op, dedup.StatusOK)
		s.advance(tick)
		s.want(claim(id, 2), dedup.StatusGranted)
	}},
	{"ended lease", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		s.same("lost", s.want(extend(id, r.Token), dedup.StatusLost), r)
		s.want(claim(id, 2), dedup.StatusGranted)
	}},
	{"another token", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		next := s.want(claim(id, 2), dedup.StatusGranted)
		s.same("the earlier token", s.want(extend(id, r.Token), dedup.StatusLost), next)
		s.same("a later token", s.want(extend(id, next.Token+1), dedup.StatusLost), next)
	}},
	{"not claimed", func(s *suite) {
		s.same("no record", s.want(extend(s.id(), 1), dedup.StatusLost), dedup.Record{})

		id, r := s.granted()
		r = s.want(release(id, r.Token), dedup.StatusOK)
		s.same("released", s.want(extend(id, r.Token), dedup.StatusLost), r)

		id, r = s.granted()
		r = s.want(complete(id, r.Token, "result"), dedup.StatusOK)
		s.same("done", s.want(extend(id, r.Token), dedup.StatusLost), r)
	}},
}
