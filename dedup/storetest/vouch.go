package storetest

import (
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var vouchRules = []rule{
	{"stable", func(s *suite) {
		before := s.vouch()
		id, r := s.granted()
		s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.advance(lease + ttl)
		s.want(claim(id, 2), driver.StatusGranted)
		if after := s.vouch(); !sameVouch(after, before) {
			s.t.Errorf("Vouch: got %+v, want the same as before, %+v", after, before)
		}
	}},
	{"since the store was empty", func(s *suite) {
		v := s.vouch()
		if v.ID == "" {
			s.t.Errorf("ID: got none")
		}
		if v.Since.IsZero() || v.Since.After(s.now()) {
			s.t.Errorf("Since: got %v, want a time not after the store's, %v", v.Since, s.now())
		}
	}},
	{"longer TTL raises Since", func(s *suite) {
		s.advance(3 * ttl) // the records of the first two hours are forgotten
		done, d := s.granted()
		s.want(complete(done, d.Token, "result"), driver.StatusOK)
		held, h := s.granted()
		before := s.vouch()
		same := func(op driver.Op, status driver.Status) {
			s.t.Helper()
			s.want(op, status)
			if after := s.vouch(); !sameVouch(after, before) {
				s.t.Errorf("Vouch after a %v with a TTL of %v: got %+v, want the same as before, %+v", op.Kind, op.TTL, after, before)
			}
		}
		for _, d := range []time.Duration{ttl / 2, ttl} {
			same(lasting(claim(s.id(), 1), d), driver.StatusGranted)
			same(lasting(release(held, h.Token), d), driver.StatusOK)
			h = s.want(claim(held, 2), driver.StatusGranted)
		}
		longest := ttl
		for _, c := range []struct {
			op     driver.Op
			status driver.Status
		}{
			{claim(done, 2), driver.StatusDone}, // changes no record
			{claim(s.id(), 1), driver.StatusGranted},
			{complete(s.id(), h.Token, "result"), driver.StatusOK},
			{park(s.id(), h.Token, "reason"), driver.StatusOK},
			{release(s.id(), h.Token), driver.StatusLost},
		} {
			s.want(lasting(c.op, longest+ttl), c.status)
			s.raised(c.op.Kind, longest)
			longest += ttl
			before = s.vouch()
			same(lasting(claim(s.id(), 1), longest), driver.StatusGranted)
			same(claim(s.id(), 1), driver.StatusGranted)
		}
	}},
	{"longer TTL twice at once", func(s *suite) {
		s.advance(3 * ttl)
		s.apply(lasting(claim(s.id(), 1), 2*ttl), lasting(claim(s.id(), 1), 4*ttl))
		first, v := s.now(), s.vouch()
		if want := first.Add(-ttl); !v.Since.Equal(want) {
			s.t.Errorf("Since: got %v, want %v: of two bounds the later one counts", v.Since, want)
		}
		for range 9 {
			s.advance(ttl / 2)
			s.bounded(first, ttl)
			s.bounded(first, 2*ttl)
		}
	}},
}

func (s *suite) vouch() driver.Vouch {
	s.t.Helper()
	v, err := s.store.Vouch(s.t.Context())
	if err != nil {
		s.t.Fatalf("Vouch: %v", err)
	}
	return v
}

// lasting returns op with another TTL.
func lasting(op driver.Op, ttl time.Duration) driver.Op {
	op.TTL = ttl
	return op
}

// raised wants Since to be raised by an operation of just now, whose TTL is
// longer than all before, of which the longest was old. It moves the time on
// until the next such operation can raise Since again.
func (s *suite) raised(kind driver.OpKind, old time.Duration) {
	s.t.Helper()
	at, v := s.now(), s.vouch()
	if want := at.Add(-old); !v.Since.Equal(want) {
		s.t.Fatalf("Since after a %v with a TTL longer than %v: got %v, want %v, that much before", kind, old, v.Since, want)
	}
	for range 6 {
		s.advance(old / 2)
		s.bounded(at, old)
	}
}

// bounded wants Since to lie where an operation at that time allows it, whose TTL
// was longer than old: records that were made before are forgotten when they are
// as old as that.
func (s *suite) bounded(at time.Time, old time.Duration) {
	s.t.Helper()
	low := s.now().Add(-old)
	if low.After(at) {
		low = at
	}
	if v := s.vouch(); v.Since.Before(low) || v.Since.After(at) {
		s.t.Errorf("Since, %v after a TTL became longer than %v: got %v, want it from %v to %v", s.now().Sub(at), old, v.Since, low, at)
	}
}

func sameVouch(a, b driver.Vouch) bool {
	return a.ID == b.ID && a.Shared == b.Shared && a.Since.Equal(b.Since)
}
