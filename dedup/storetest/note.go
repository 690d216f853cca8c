package storetest

import (
	"strings"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// noteRules are those of claims that carry a note.
var noteRules = []rule{
	{"kept with the claim", func(s *suite) {
		id := s.id()
		r := s.want(noted(claim(id, 1), "note"), driver.StatusGranted)
		if string(r.Note) != "note" {
			s.t.Errorf("granted: got note %q, want %q", r.Note, "note")
		}
		s.same("repeated, and the first note stands", s.want(noted(claim(id, 1), "another"), driver.StatusGranted), r)
		s.same("held", s.want(claim(id, 2), driver.StatusHeld), r)
		s.advance(tick)
		r = s.want(extend(id, r.Token), driver.StatusOK)
		if string(r.Note) != "note" {
			s.t.Errorf("extended without a note: got note %q, want it kept", r.Note)
		}
	}},
	{"never taken over", func(s *suite) {
		id := s.id()
		r := s.want(noted(claim(id, 1), "note"), driver.StatusGranted)
		for _, d := range []struct {
			name string
			op   driver.Op
		}{
			{"another claim", claim(id, 2)},
			{"its own nonce", claim(id, 1)},
			{"a claim with a note", noted(claim(id, 3), "mine")},
		} {
			s.advance(lease)
			s.same(d.name, s.want(d.op, driver.StatusHeld), r)
		}
		other := claim(id, 2)
		other.Fingerprint = otherPrint
		s.same("another payload", s.want(other, driver.StatusConflict), r)
		s.same("extend", s.want(extend(id, r.Token), driver.StatusLost), r)
		s.same("unpark", s.want(unpark(id), driver.StatusHeld), r)
		got := s.want(release(id, r.Token), driver.StatusOK)
		if got.Note != nil || got.Ambiguous {
			s.t.Errorf("released by its holder: got note %q, Ambiguous %t, want none and false", got.Note, got.Ambiguous)
		}
		if got := s.want(claim(id, 2), driver.StatusGranted); got.Note != nil || got.Attempt != 1 {
			s.t.Errorf("granted anew: got note %q, Attempt %d, want none and 1", got.Note, got.Attempt)
		}
	}},
	{"forgotten when the record expires", func(s *suite) {
		id := s.id()
		s.want(noted(claim(id, 1), "note"), driver.StatusGranted)
		s.advance(lease + ttl)
		if got := s.want(claim(id, 2), driver.StatusGranted); got.Note != nil || got.Ambiguous {
			s.t.Errorf("got note %q, Ambiguous %t, want a fresh record", got.Note, got.Ambiguous)
		}
	}},
	{"written and replaced by an extend", func(s *suite) {
		id := s.id()
		first := claim(id, 1)
		first.Position = elsewhere
		r := s.want(first, driver.StatusGranted)
		s.want(release(id, r.Token), driver.StatusOK)
		r = s.want(claim(id, 2), driver.StatusGranted) // its position is not the first
		for _, note := range []string{"a note", "a longer note than before", "n"} {
			s.advance(tick)
			want := r
			want.Note, want.LeaseEnd, want.Expires = []byte(note), s.now().Add(lease), s.now().Add(lease+ttl)
			r = s.want(noted(extend(id, r.Token), note), driver.StatusOK)
			s.same("extended", r, want)
			s.same("held", s.want(claim(id, 3), driver.StatusHeld), want)
		}
		s.advance(lease)
		s.same("held after its lease", s.want(claim(id, 3), driver.StatusHeld), r)
		s.same("an extend that is late changes no note", s.want(noted(extend(id, r.Token), "late"), driver.StatusLost), r)
	}},
	{"of the greatest length, and one byte more", func(s *suite) {
		most := strings.Repeat("\x00n", driver.MaxNote/2)
		id, r := s.granted()
		r = s.want(noted(extend(id, r.Token), most), driver.StatusOK)
		if string(r.Note) != most {
			s.t.Errorf("extended: got a note of %d bytes, want the one of %d", len(r.Note), len(most))
		}
		free := s.id()
		if got := s.want(noted(claim(free, 1), most), driver.StatusGranted); string(got.Note) != most {
			s.t.Errorf("granted: got a note of %d bytes, want the one of %d", len(got.Note), len(most))
		}
		free = s.id()
		for _, op := range []driver.Op{noted(claim(free, 1), most+"x"), noted(extend(id, r.Token), most+"x")} {
			replies, err := s.store.Apply(s.t.Context(), []driver.Op{op, claim(s.id(), 1)})
			if err != nil {
				s.t.Fatal(err)
			}
			if replies[0].Err == nil || replies[1].Err != nil || replies[1].Status != driver.StatusGranted {
				s.t.Errorf("%v with a note too long, and a claim: got %+v, %+v, want an error and a grant", op.Kind, replies[0], replies[1])
			}
		}
		s.same("held", s.want(claim(id, 2), driver.StatusHeld), r)
		s.want(claim(free, 2), driver.StatusGranted)
	}},
	{"belongs to the caller", func(s *suite) {
		id := s.id()
		op := noted(claim(id, 1), "note")
		r := s.want(op, driver.StatusGranted)
		copy(op.Note, "XXXX")
		copy(r.Note, "YYYY")
		ext := noted(extend(id, r.Token), "next")
		got := s.want(claim(id, 2), driver.StatusHeld)
		if string(got.Note) != "note" {
			s.t.Errorf("held: got note %q, want %q: the store keeps none of the caller's bytes", got.Note, "note")
		}
		r = s.want(ext, driver.StatusOK)
		copy(ext.Note, "XXXX")
		copy(r.Note, "YYYY")
		r = s.want(extend(id, r.Token), driver.StatusOK)
		if string(r.Note) != "next" {
			s.t.Errorf("extended: got note %q, want %q: the store keeps none of the caller's bytes", r.Note, "next")
		}
		copy(r.Note, "YYYY")
		if got := s.want(claim(id, 2), driver.StatusHeld); string(got.Note) != "next" {
			s.t.Errorf("held: got note %q, want %q: what the store answered is the caller's", got.Note, "next")
		}
	}},
}

// unparkRules are those of a parked record that is released for a replay.
var unparkRules = []rule{
	{"parked", func(s *suite) {
		for _, ambiguous := range []bool{false, true} {
			id, r := s.granted()
			s.want(release(id, r.Token), driver.StatusOK) // an attempt
			r = s.want(claim(id, 2), driver.StatusGranted)
			op := park(id, r.Token, "reason")
			op.Ambiguous = ambiguous
			r = s.want(op, driver.StatusOK)
			s.advance(tick)
			got := s.want(unpark(id), driver.StatusOK)
			want := r
			want.State, want.Token, want.Attempt, want.Result = driver.StateReleased, got.Token, 0, nil
			want.Expires = s.now().Add(ttl)
			s.same("unparked", got, want)
			if got.Token <= r.Token {
				s.t.Errorf("Token: got %d, want more than the parked record's %d", got.Token, r.Token)
			}
			s.advance(tick)
			again := s.want(unpark(id), driver.StatusOK)
			s.same("again: it is released", again, got)
			replay := s.want(claim(id, 3), driver.StatusGranted)
			if replay.Attempt != 0 || replay.Ambiguous != ambiguous || !replay.FirstSeen.Equal(r.FirstSeen) {
				s.t.Errorf("replay: got Attempt %d, Ambiguous %t, FirstSeen %v, want 0, %t, %v",
					replay.Attempt, replay.Ambiguous, replay.FirstSeen, ambiguous, r.FirstSeen)
			}
			if replay.Token <= got.Token {
				s.t.Errorf("Token of the replay: got %d, want more than %d", replay.Token, got.Token)
			}
		}
	}},
	{"the token is above the floor", func(s *suite) {
		id, r := s.granted()
		r = s.want(park(id, r.Token, "reason"), driver.StatusOK)
		op := unpark(id)
		op.Floor = r.Token + 1_000_000
		if got := s.want(op, driver.StatusOK); got.Token <= op.Floor {
			s.t.Errorf("got token %d, want more than the floor %d", got.Token, op.Floor)
		}
	}},
	{"a late word of the run that parked it", func(s *suite) {
		id, r := s.granted()
		s.want(park(id, r.Token, "reason"), driver.StatusOK)
		want := s.want(unpark(id), driver.StatusOK)
		for _, late := range []driver.Op{park(id, r.Token, "reason"), complete(id, r.Token, "late"), release(id, r.Token), extend(id, r.Token)} {
			s.same(late.Kind.String(), s.want(late, driver.StatusLost), want)
		}
		s.want(claim(id, 2), driver.StatusGranted)
	}},
	{"with a tag, a long source and a reason", func(s *suite) {
		for _, source := range []string{"", "o", "orders", strings.Repeat("a long name ", 40)} {
			op := claim(s.id(), 1)
			op.Tag, op.Position = tag, driver.Position{Source: source, Partition: -1 << 31, Offset: 1<<63 - 1}
			r := s.want(op, driver.StatusGranted)
			r = s.want(park(op.ID, r.Token, strings.Repeat("reason ", 100)), driver.StatusOK)
			got := s.want(unpark(op.ID), driver.StatusOK)
			if got.First != op.Position || got.Tag != tag || got.Fingerprint != fingerprint || len(got.Result) != 0 {
				s.t.Errorf("source of %d bytes: got %+v, want first %v and tag %d, and no result", len(source), got, op.Position, tag)
			}
			op.Nonce, op.Fingerprint = 2, otherPrint
			s.want(op, driver.StatusConflict)
		}
	}},
	{"free", func(s *suite) {
		id := s.id()
		s.same("unparked", s.want(unpark(id), driver.StatusOK), driver.Record{})
		s.want(claim(id, 1), driver.StatusGranted)
	}},
	{"expired", func(s *suite) {
		id, r := s.granted()
		s.want(park(id, r.Token, "reason"), driver.StatusOK)
		s.advance(ttl)
		s.same("unparked", s.want(unpark(id), driver.StatusOK), driver.Record{})
	}},
	{"claimed, completed or released: nothing changes", func(s *suite) {
		id, r := s.granted()
		s.same("claimed", s.want(unpark(id), driver.StatusHeld), r)
		s.advance(lease)
		s.same("claimed, lease ended", s.want(unpark(id), driver.StatusHeld), r)
		r = s.want(release(id, r.Token), driver.StatusOK)
		s.advance(tick)
		s.same("released", s.want(unpark(id), driver.StatusOK), r)
		id, r = s.granted()
		r = s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.same("completed", s.want(unpark(id), driver.StatusDone), r)
	}},
}
