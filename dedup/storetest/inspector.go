package storetest

import (
	"context"
	"errors"
	"strings"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var inspectorRules = []rule{
	{"lookup", inspect(func(s *suite, in driver.Inspector) {
		records := s.oneOfEach()
		for id, want := range records {
			s.lookup(in, id, want)
		}
		s.lookup(in, s.id(), driver.Record{})
		s.advance(lease + ttl)
		for id := range records {
			s.lookup(in, id, driver.Record{})
		}
	})},
	{"lookup shows an extended lease", inspect(func(s *suite, in driver.Inspector) {
		id, r := s.granted()
		s.advance(tick)
		r = s.want(extend(id, r.Token), driver.StatusOK)
		s.lookup(in, id, r)
	})},
	{"lookup changes nothing", inspect(func(s *suite, in driver.Inspector) {
		id, r := s.granted()
		done := s.want(complete(id, r.Token, "result"), driver.StatusOK)
		got, err := in.Lookup(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		copy(got.Result, "XXXXXX")
		s.same("after a lookup", s.want(claim(id, 2), driver.StatusDone), done)
	})},
	{"records", inspect(func(s *suite, in driver.Inspector) {
		gone, _ := s.granted()
		s.advance(lease + ttl)
		want := s.oneOfEach()
		seen := make(map[driver.ID]int)
		for r, err := range in.Records(s.t.Context()) {
			if err != nil {
				s.t.Fatal(err)
			}
			seen[r.ID]++
			if w, ok := want[r.ID]; ok {
				s.same("record", r.Record, w)
			}
		}
		for id := range want {
			if seen[id] != 1 {
				s.t.Errorf("record that is %v: seen %d times, want once", want[id].State, seen[id])
			}
		}
		if seen[gone] != 0 {
			s.t.Errorf("an expired record: seen %d times, want never", seen[gone])
		}
	})},
	{"records ends early", inspect(func(s *suite, in driver.Inspector) {
		s.oneOfEach()
		n := 0
		for _, err := range in.Records(s.t.Context()) {
			if err != nil {
				s.t.Fatal(err)
			}
			if n++; n == 2 {
				break
			}
		}
		s.granted() // the store still serves
	})},
	{"records while the store serves", inspect(func(s *suite, in driver.Inspector) {
		want := s.oneOfEach()
		for r, err := range in.Records(s.t.Context()) {
			if err != nil {
				s.t.Fatal(err)
			}
			s.granted()
			if _, ok := want[r.ID]; ok && r.State != driver.StateClaimed {
				s.forget(in, r.ID)
				delete(want, r.ID)
			}
		}
		for id, r := range want {
			if r.State != driver.StateClaimed {
				s.t.Errorf("a record that is %v was not seen", r.State)
			}
			s.lookup(in, id, r)
		}
	})},
	{"stats", inspect(func(s *suite, in driver.Inspector) {
		n := int64(len(s.oneOfEach()))
		_, r := s.granted()
		got, err := in.Stats(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		if got.Records != 0 && got.Records < n+1 {
			s.t.Errorf("Records: got %d, want at least the %d living ones", got.Records, n+1)
		}
		if got.Token != 0 && got.Token < r.Token {
			s.t.Errorf("Token: got %d, want at least the last one issued, %d", got.Token, r.Token)
		}
		if !got.Now.IsZero() && !got.Now.Equal(s.now()) {
			s.t.Errorf("Now: got %v, want the store's time %v", got.Now, s.now())
		}
		if v := s.vouch(); !sameVouch(got.Vouch, v) {
			s.t.Errorf("Vouch: got %+v, want %+v", got.Vouch, v)
		}
	})},
	{"forget", inspect(func(s *suite, in driver.Inspector) {
		for id, r := range s.oneOfEach() {
			if r.State == driver.StateClaimed {
				continue
			}
			s.forget(in, id)
			s.lookup(in, id, driver.Record{})
			s.fresh(id, r.Token)
		}
	})},
	{"forget refuses what is claimed or ambiguous", inspect(func(s *suite, in driver.Inspector) {
		done, r := s.granted()
		r = s.want(complete(done, r.Token, "result"), driver.StatusOK)
		lapsed, l := s.granted()
		s.advance(lease)
		held, h := s.granted()
		released, a := s.granted()
		op := release(released, a.Token)
		op.Ambiguous = true
		a = s.want(op, driver.StatusOK)
		parked, p := s.granted()
		op = park(parked, p.Token, "reason")
		op.Ambiguous = true
		p = s.want(op, driver.StatusOK)
		note := s.id()
		n := s.want(noted(claim(note, 1), "note"), driver.StatusGranted)
		refused := func(what string, forget func(context.Context, []driver.ID) error, id driver.ID) {
			s.t.Helper()
			for _, ids := range [][]driver.ID{{id}, {done, id}, {id, done}} {
				if err := forget(s.t.Context(), ids); !errors.Is(err, driver.ErrBusy) {
					s.t.Errorf("%s, and %d others: got error %v, want one that matches ErrBusy", what, len(ids)-1, err)
				} else if strings.Contains(err.Error(), "\n") {
					s.t.Errorf("%s: got error %q, want one line", what, err)
				}
			}
			s.lookup(in, done, r)
		}
		refused("Forget of a claim", in.Forget, held)
		refused("Forget of a claim whose lease ended", in.Forget, lapsed)
		refused("Forget of a released record that is ambiguous", in.Forget, released)
		refused("Forget of a parked record that is ambiguous", in.Forget, parked)
		refused("Forget of a claim with a note", in.Forget, note)
		refused("ForceForget of a claim with a note", in.ForceForget, note)
		for id, want := range map[driver.ID]driver.Record{held: h, lapsed: l, released: a, parked: p, note: n} {
			s.lookup(in, id, want)
		}
		forced := []driver.ID{held, lapsed, released, parked, done}
		if err := in.ForceForget(s.t.Context(), append(forced, s.id())); err != nil {
			s.t.Fatalf("ForceForget: %v", err)
		}
		for i, last := range []driver.Record{h, l, a, p, r} {
			s.lookup(in, forced[i], driver.Record{})
			s.fresh(forced[i], last.Token)
		}
		s.advance(lease)
		if err := in.ForceForget(s.t.Context(), []driver.ID{note}); !errors.Is(err, driver.ErrBusy) {
			s.t.Errorf("ForceForget of a claim with a note, whose lease ended: got error %v, want one that matches ErrBusy", err)
		}
		s.advance(ttl)
		s.forget(in, note, held, released) // expired, or lapsed long since
	})},
	{"the holder of a claim that was forgotten can still record", inspect(func(s *suite, in driver.Inspector) {
		id, r := s.granted()
		if err := in.ForceForget(s.t.Context(), []driver.ID{id}); err != nil {
			s.t.Fatalf("ForceForget: %v", err)
		}
		s.want(extend(id, r.Token), driver.StatusLost)
		s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.want(claim(id, 2), driver.StatusDone)
	})},
	{"forget several, unknown, none", inspect(func(s *suite, in driver.Inspector) {
		s.forget(in)
		s.forget(in, s.id())
		id, r := s.granted()
		s.want(release(id, r.Token), driver.StatusOK)
		s.forget(in, id, s.id(), id)
		s.forget(in, id)
		s.fresh(id, r.Token)
	})},
	{"ended context", inspect(func(s *suite, in driver.Inspector) {
		id, r := s.granted()
		r = s.want(complete(id, r.Token, "result"), driver.StatusOK)
		ctx, cancel := context.WithCancel(s.t.Context())
		cancel()
		if err := in.Forget(ctx, []driver.ID{id}); err == nil {
			s.t.Errorf("Forget under an ended context: got no error")
		}
		s.lookup(in, id, r)
		var last error
		for _, err := range in.Records(ctx) {
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			s.t.Errorf("Records under an ended context: got error %v at the end, want context.Canceled", last)
		}
	})},
}

// inspect makes a rule for stores that implement Inspector; the others have
// nothing to break.
func inspect(run func(*suite, driver.Inspector)) func(*suite) {
	return func(s *suite) {
		if in, ok := s.store.(driver.Inspector); ok {
			run(s, in)
		}
	}
}

// oneOfEach makes a record of each kind, and one with an ended lease.
func (s *suite) oneOfEach() map[driver.ID]driver.Record {
	s.t.Helper()
	records := make(map[driver.ID]driver.Record)
	ended, r := s.granted()
	records[ended] = r
	s.advance(lease)
	for _, end := range []func(driver.ID, driver.Token) driver.Op{
		func(id driver.ID, token driver.Token) driver.Op { return extend(id, token) },
		func(id driver.ID, token driver.Token) driver.Op { return release(id, token) },
		func(id driver.ID, token driver.Token) driver.Op { return complete(id, token, "result") },
		func(id driver.ID, token driver.Token) driver.Op { return park(id, token, "reason") },
	} {
		id, r := s.granted()
		records[id] = s.want(end(id, r.Token), driver.StatusOK)
	}
	return records
}

func (s *suite) lookup(in driver.Inspector, id driver.ID, want driver.Record) {
	s.t.Helper()
	got, err := in.Lookup(s.t.Context(), id)
	if err != nil {
		s.t.Fatalf("Lookup: %v", err)
	}
	s.same("Lookup", got, want)
}

func (s *suite) forget(in driver.Inspector, ids ...driver.ID) {
	s.t.Helper()
	if err := in.Forget(s.t.Context(), ids); err != nil {
		s.t.Fatalf("Forget(%d ids): %v", len(ids), err)
	}
}
