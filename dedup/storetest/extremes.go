package storetest

import (
	"math"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

const (
	longest = time.Duration(math.MaxInt64)
	century = 36500 * 24 * time.Hour
)

// extremes are durations at which arithmetic overflows or rounds.
var extremes = []time.Duration{
	math.MinInt64, math.MinInt64 + 1, -tick, -1, 0, 1, tick - 1, tick, tick + 1, time.Hour - 1, century,
	longest/2 + 1, longest - time.Hour, longest / tick * tick, longest/tick*tick - 1, longest - tick, longest - 1, longest,
}

// extremeRules are those of durations that an option may have, and no clock can add
// up: they last for ever, or are none.
var extremeRules = []rule{
	{"a record with the longest TTL is kept", func(s *suite) {
		until := s.keptForEver()
		s.advance(century)
		until()
	}},
	{"a claim with the longest lease is held", func(s *suite) {
		id := s.id()
		op := claim(id, 1)
		op.Lease = longest
		r := s.want(op, driver.StatusGranted)
		extended, e := s.granted()
		ext := extend(extended, e.Token)
		ext.Lease, ext.TTL = longest, longest
		s.want(ext, driver.StatusOK)
		s.advance(century)
		s.want(claim(id, 2), driver.StatusHeld)
		s.want(claim(extended, 2), driver.StatusHeld)
		s.want(complete(id, r.Token, "result"), driver.StatusOK)
		s.want(claim(id, 2), driver.StatusDone)
	}},
	{"no TTL: nothing is kept", func(s *suite) {
		for _, d := range []time.Duration{0, -1, math.MinInt64} {
			for _, end := range []func(driver.ID, driver.Token) driver.Op{
				release,
				func(id driver.ID, token driver.Token) driver.Op { return complete(id, token, "result") },
				func(id driver.ID, token driver.Token) driver.Op { return park(id, token, "reason") },
			} {
				id, r := s.granted()
				if got := s.want(lasting(end(id, r.Token), d), driver.StatusOK); !got.Expires.Equal(s.now()) {
					s.t.Errorf("TTL %v: got a record that expires at %v, want now, %v", d, got.Expires, s.now())
				}
				s.fresh(id, r.Token)
			}
		}
	}},
	{"no lease: the next claim takes over", func(s *suite) {
		for _, d := range []time.Duration{0, -1, math.MinInt64} {
			op := claim(s.id(), 1)
			op.Lease = d
			r := s.want(op, driver.StatusGranted)
			if got := s.want(claim(op.ID, 2), driver.StatusGranted); !got.Ambiguous || got.Token <= r.Token {
				s.t.Errorf("lease %v: got Ambiguous %t, token %d after %d, want a take-over", d, got.Ambiguous, got.Token, r.Token)
			}
		}
	}},
	{"as Step says", func(s *suite) { rapid.Check(s.t, s.extreme) }},
	{"the longest TTL raises Since", func(s *suite) {
		s.advance(3 * ttl)
		id, _ := s.granted()
		s.want(lasting(claim(id, 2), longest), driver.StatusHeld)
		s.raised(driver.OpClaim, ttl)
	}},
}

// keptForEver makes records with the longest TTL, and returns what wants them kept.
func (s *suite) keptForEver() (check func()) {
	s.t.Helper()
	released, r := s.granted()
	s.want(lasting(release(released, r.Token), longest), driver.StatusOK)
	claimed := s.id()
	s.want(lasting(claim(claimed, 1), longest), driver.StatusGranted)
	extended, e := s.granted()
	s.want(lasting(noted(extend(extended, e.Token), "note"), longest), driver.StatusOK)
	done, d := s.granted()
	want := s.want(lasting(complete(done, d.Token, "result"), longest), driver.StatusOK)
	parked, p := s.granted()
	s.want(lasting(park(parked, p.Token, "reason"), longest), driver.StatusOK)
	unparked, u := s.granted()
	s.want(park(unparked, u.Token, "reason"), driver.StatusOK)
	u = s.want(lasting(unpark(unparked), longest), driver.StatusOK)
	return func() {
		s.t.Helper()
		if got := s.want(claim(released, 2), driver.StatusGranted); got.Attempt != 1 {
			s.t.Errorf("released: got attempt %d, want what is remembered, 1", got.Attempt)
		}
		if got := s.want(claim(claimed, 2), driver.StatusGranted); !got.Ambiguous {
			s.t.Errorf("claimed: not Ambiguous, want a take-over")
		}
		s.want(claim(extended, 2), driver.StatusHeld)
		s.same("done", s.want(claim(done, 2), driver.StatusDone), want)
		s.want(claim(parked, 2), driver.StatusParked)
		if got := s.want(claim(unparked, 2), driver.StatusGranted); !got.FirstSeen.Equal(u.FirstSeen) {
			s.t.Errorf("unparked: got first seen %v, want what is remembered, %v", got.FirstSeen, u.FirstSeen)
		}
	}
}

// extreme drives one key through operations with extreme durations. A store may keep
// times to the tick only, if it rounds them up.
func (s *suite) extreme(t *rapid.T) {
	id := s.id()
	var r driver.Record
	var token driver.Token
	duration := rapid.SampledFrom(extremes)
	for range rapid.IntRange(1, 8).Draw(t, "ops") {
		op := driver.Op{
			Kind: rapid.SampledFrom([]driver.OpKind{
				driver.OpClaim, driver.OpClaim, driver.OpExtend, driver.OpExtend, driver.OpComplete, driver.OpPark, driver.OpRelease, driver.OpUnpark,
			}).Draw(t, "kind"),
			ID: id, Token: token, Lease: duration.Draw(t, "lease"), TTL: duration.Draw(t, "TTL"), Nonce: rapid.Uint64Range(1, 2).Draw(t, "nonce"),
			Fingerprint: fingerprint, Position: position,
		}
		if op.Kind == driver.OpClaim || op.Kind == driver.OpUnpark {
			op.Token = 0
		}
		if op.Lease%tick != 0 && op.TTL > 0 {
			op.TTL = op.TTL.Truncate(tick) // two times rounded up are too far from one
		}
		replies, err := apply(s.t, s.store, []driver.Op{op})
		if err != nil {
			t.Fatal(err)
		}
		got, now := replies[0], s.now()
		got.Record.LeaseEnd = s.rounded(got.Record.LeaseEnd, r, op, now, func(r driver.Record) time.Time { return r.LeaseEnd })
		got.Record.Expires = s.rounded(got.Record.Expires, r, op, now, func(r driver.Record) time.Time { return r.Expires })
		after, err := follow(r, op, now, token, got)
		if err != nil {
			t.Fatalf("%+v on %+v at %v: %v", op, r, now, err)
		}
		r, token = after, max(token, after.Token)
		s.advance(rapid.SampledFrom([]time.Duration{0, 0, tick, time.Hour}).Draw(t, "advance"))
	}
}

// rounded returns the time in a reply, or the one that Step says if it is that to
// the tick.
func (s *suite) rounded(got time.Time, r driver.Record, op driver.Op, now time.Time, field func(driver.Record) time.Time) time.Time {
	_, want := driver.Step(r, op, now, 0)
	if w := field(want.Record); got.Sub(w).Abs() <= 2*tick {
		return w
	}
	return got
}
