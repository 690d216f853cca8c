package storetest

import (
	"github.com/oncequeue/oncequeue/dedup/driver"
)

var extendRules = []rule{
	{"living lease", func(s *suite) {
		id, r := s.granted()
		for range 3 {
			s.advance(lease - tick)
			r.LeaseEnd, r.Expires = s.now().Add(lease), s.now().Add(lease+ttl)
			s.same("extended", s.want(extend(id, r.Token), driver.StatusOK), r)
			s.same("held", s.want(claim(id, 2), driver.StatusHeld), r)
		}
		s.advance(lease)
		s.want(claim(id, 2), driver.StatusGranted)
	}},
	{"can shorten", func(s *suite) {
		id, r := s.granted()
		op := extend(id, r.Token)
		op.Lease = tick
		s.want(op, driver.StatusOK)
		s.advance(tick)
		s.want(claim(id, 2), driver.StatusGranted)
	}},
	{"ended lease", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		s.same("lost", s.want(extend(id, r.Token), driver.StatusLost), r)
		s.want(claim(id, 2), driver.StatusGranted)
	}},
	{"another token", func(s *suite) {
		id, r := s.granted()
		s.advance(lease)
		next := s.want(claim(id, 2), driver.StatusGranted)
		s.same("the earlier token", s.want(extend(id, r.Token), driver.StatusLost), next)
		s.same("a later token", s.want(extend(id, next.Token+1), driver.StatusLost), next)
	}},
	{"not claimed", func(s *suite) {
		s.same("no record", s.want(extend(s.id(), 1), driver.StatusLost), driver.Record{})

		id, r := s.granted()
		r = s.want(release(id, r.Token), driver.StatusOK)
		s.same("released", s.want(extend(id, r.Token), driver.StatusLost), r)

		id, r = s.granted()
		r = s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.same("done", s.want(extend(id, r.Token), driver.StatusLost), r)
	}},
}
