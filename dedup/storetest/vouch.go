package storetest

import "github.com/oncequeue/oncequeue/dedup"

var vouchRules = []rule{
	{"stable", func(s *suite) {
		before := s.vouch()
		id, r := s.granted()
		s.want(complete(id, r.Token, "result"), dedup.StatusOK)
		s.advance(lease + ttl)
		s.want(claim(id, 2), dedup.StatusGranted)
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
}

func (s *suite) vouch() dedup.Vouch {
	s.t.Helper()
	v, err := s.store.Vouch(s.t.Context())
	if err != nil {
		s.t.Fatalf("Vouch: %v", err)
	}
	return v
}

func sameVouch(a, b dedup.Vouch) bool {
	return a.ID == b.ID && a.Shared == b.Shared && a.Since.Equal(b.Since)
}
