package dedup_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestPolicies(t *testing.T) {
	ambiguous := func(t *testing.T, d *dedup.Deduplicator) *dedup.Message {
		want(t, d.Do(t.Context(), message("k", "v"), fails(dedup.MaybeDone(errBroken), 1).handle), dedup.Failed, false)
		return message("k", "v")
	}
	conflict := func(t *testing.T, d *dedup.Deduplicator) *dedup.Message {
		want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Processed, true)
		return message("k", "other")
	}
	stale := func(*testing.T, *dedup.Deduplicator) *dedup.Message {
		m := message("k", "v")
		m.Published = time.Now().Add(-25 * time.Hour)
		return m
	}
	unkeyed := func(*testing.T, *dedup.Deduplicator) *dedup.Message { return message("", "v") }
	for name, c := range map[string]struct {
		make    func(*testing.T, *dedup.Deduplicator) *dedup.Message
		o       dedup.Options
		parks   bool // with a DeadLetter
		outcome dedup.Outcome
		settled bool
		halt    bool
		runs    int
		err     error
	}{
		"unkeyed by default":           {make: unkeyed, outcome: dedup.Unkeyed, halt: true, err: dedup.ErrNoKey},
		"unkeyed by default, parking":  {make: unkeyed, parks: true, outcome: dedup.Unkeyed, settled: true, err: dedup.ErrNoKey},
		"unkeyed, process":             {make: unkeyed, o: dedup.Options{OnUnkeyed: dedup.PolicyProcess}, outcome: dedup.Unkeyed, settled: true, runs: 1, err: dedup.ErrNoKey},
		"unkeyed, halt":                {make: unkeyed, parks: true, o: dedup.Options{OnUnkeyed: dedup.PolicyHalt}, outcome: dedup.Unkeyed, halt: true, err: dedup.ErrNoKey},
		"conflict by default":          {make: conflict, outcome: dedup.Conflict, halt: true, err: dedup.ErrConflict},
		"conflict by default, parking": {make: conflict, parks: true, outcome: dedup.Conflict, settled: true, err: dedup.ErrConflict},
		"conflict, skip":               {make: conflict, o: dedup.Options{OnConflict: dedup.PolicySkip}, outcome: dedup.Conflict, settled: true, err: dedup.ErrConflict},
		"stale by default":             {make: stale, outcome: dedup.Processed, settled: true, runs: 1},
		"stale, halt":                  {make: stale, o: dedup.Options{OnStale: dedup.PolicyHalt}, outcome: dedup.Stale, halt: true, err: dedup.ErrStale},
		"stale, park":                  {make: stale, parks: true, o: dedup.Options{OnStale: dedup.PolicyPark}, outcome: dedup.Stale, settled: true, err: dedup.ErrStale},
		"ambiguous by default":         {make: ambiguous, outcome: dedup.Processed, settled: true, runs: 1},
		"ambiguous, halt":              {make: ambiguous, o: dedup.Options{OnAmbiguous: dedup.PolicyHalt}, outcome: dedup.Ambiguous, halt: true, err: dedup.ErrAmbiguous},
		"ambiguous, park":              {make: ambiguous, parks: true, o: dedup.Options{OnAmbiguous: dedup.PolicyPark}, outcome: dedup.Ambiguous, settled: true, err: dedup.ErrAmbiguous},
	} {
		t.Run(name, func(t *testing.T) {
			var l letters
			if c.parks {
				c.o.DeadLetter = l.send
			}
			d := newDedup(t, newStore(), &c.o)
			m := c.make(t, d)
			h := &handler{}
			for range 2 { // an unsettled message is refused again, with the same words
				r := d.Do(t.Context(), m, h.handle)
				if r.Outcome != c.outcome || r.Settled() != c.settled || r.Halt != c.halt {
					t.Fatalf("got %v, settled %v, halt %v (%v); want %v, %v, %v", r.Outcome, r.Settled(), r.Halt, r.Err, c.outcome, c.settled, c.halt)
				}
				if !errors.Is(r.Err, c.err) || c.err == nil && r.Err != nil {
					t.Errorf("got err %v, want %v", r.Err, c.err)
				}
				if h.runs() != c.runs {
					t.Errorf("got %d runs, want %d", h.runs(), c.runs)
				}
				if c.settled {
					break
				}
			}
			if parked := c.parks && c.settled; parked != (len(l.whys) == 1) {
				t.Errorf("got %d dead letters", len(l.whys))
			}
			if c.runs == 1 && h.claim(1).Ambiguous != (name == "ambiguous by default") {
				t.Errorf("got Claim.Ambiguous %v", h.claim(1).Ambiguous)
			}
			if c.runs == 1 && h.claim(1).Stale != (name == "stale by default") {
				t.Errorf("got Claim.Stale %v", h.claim(1).Stale)
			}
		})
	}
}

func TestParkedKeyIsAnsweredAndForgetFreesIt(t *testing.T) {
	s := newStore()
	var l letters
	d := newDedup(t, s, &dedup.Options{DeadLetter: l.send})
	want(t, d.Do(t.Context(), message("k", "v"), fails(dedup.Permanent(errBroken), 1).handle), dedup.Parked, true)
	h := &handler{}
	r := d.Do(t.Context(), message("k", "v"), h.handle)
	want(t, r, dedup.AlreadyParked, true)
	if h.runs() != 0 || len(l.whys) != 1 || r.Err == nil || r.Err.Error() != errBroken.Error() {
		t.Errorf("got %d runs, %d dead letters, err %v", h.runs(), len(l.whys), r.Err)
	}
	if err := s.Forget(t.Context(), []dedup.ID{r.ID}); err != nil {
		t.Fatal(err)
	}
	want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
}

func TestConflictWithSkipIsBusyUntilSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		o := &dedup.Options{OnConflict: dedup.PolicySkip}
		a, b := newDedup(t, s, o), newDedup(t, s, o)
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.Do(context.Background(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
				time.Sleep(time.Minute)
				return nil, nil
			})
		}()
		synctest.Wait()
		want(t, b.Do(t.Context(), message("k", "other"), (&handler{}).handle), dedup.Busy, false)
		<-done
		want(t, b.Do(t.Context(), message("k", "other"), (&handler{}).handle), dedup.Conflict, true)
	})
}

func TestStaleCountsFromWhatTheStoreVouchesFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(nil)
		created := time.Now()
		time.Sleep(time.Hour)
		d := newDedup(t, s, &dedup.Options{TTL: 24 * time.Hour, ClockSkew: 2 * time.Second})
		for name, c := range map[string]struct {
			published time.Time
			stale     bool
		}{
			"before the store":           {created.Add(-time.Second), true},
			"within the skew":            {created.Add(time.Second), true},
			"after the skew":             {created.Add(3 * time.Second), false},
			"without a timestamp":        {time.Time{}, false},
			"just now":                   {time.Now(), false},
			"from a clock that is ahead": {time.Now().Add(time.Hour), false},
		} {
			h := fails(errBroken, 2)
			for run := 1; run <= 3; run++ {
				m := message(name, "v")
				m.Published = c.published
				d.Do(t.Context(), m, h.handle)
				if got := h.claim(run).Stale; got != c.stale {
					t.Errorf("%s: run %d: got stale %v, want %v", name, run, got, c.stale)
				}
			}
		}
	})
}

// What another store recorded before Since is unknown to this one.
func TestStaleCountsFromTheSinceOfTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New(nil)
		time.Sleep(time.Hour)
		d := newDedup(t, s, &dedup.Options{TTL: 24 * time.Hour, ClockSkew: 2 * time.Second})
		for name, c := range map[string]struct {
			age   time.Duration // of the message, before its Since
			stale bool
		}{
			"older":           {time.Minute, true},
			"within the skew": {-time.Second, true},
			"younger":         {-3 * time.Second, false},
		} {
			h := fails(errBroken, 0)
			m := message(name, "v")
			m.Since = time.Now().Add(-time.Minute)
			m.Published = m.Since.Add(-c.age)
			d.Do(t.Context(), m, h.handle)
			if got := h.claim(1).Stale; got != c.stale {
				t.Errorf("%s: got stale %v, want %v", name, got, c.stale)
			}
			m.Claim, m.Since = dedup.Claim{}, time.Now()
			if r := d.Do(t.Context(), m, h.handle); r.Outcome != dedup.Duplicate {
				t.Errorf("%s: with a record: got %v, want duplicate", name, r.Outcome)
			}
		}
		if v, err := d.Transport().Vouch(); err != nil || v.ID == "" {
			t.Errorf("Vouch: got %+v, %v, want the store's", v, err)
		}
	})
}

// A message that is retried for longer than TTL has its record all the time,
// so it does not become stale on the way.
func TestLongRetriesDoNotBecomeStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), &dedup.Options{TTL: time.Hour})
		h := fails(errBroken, 5)
		m := message("k", "v")
		for run := 1; run <= 6; run++ {
			d.Do(t.Context(), m, h.handle)
			if c := h.claim(run); c.Stale || c.Attempt != run {
				t.Errorf("run %d: got %+v", run, c)
			}
			time.Sleep(59 * time.Minute)
		}
		if r := d.Do(t.Context(), m, h.handle); r.Outcome != dedup.Duplicate {
			t.Errorf("got %v", r.Outcome)
		}
		time.Sleep(2 * time.Hour)
		want(t, d.Do(t.Context(), m, h.handle), dedup.Processed, true) // forgotten by now...
		if c := h.claim(7); !c.Stale {
			t.Error("a message older than TTL, without a record, was not flagged stale") // ...and never silently
		}
	})
}
