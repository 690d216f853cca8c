package storetest

import (
	"fmt"
	"io"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// RunDurable tests the promises that an embedded store keeps across a restart. An
// embedded store lives in a directory, belongs to one process and implements
// io.Closer. Call RunDurable beside [Run].
//
// open opens the store in dir, which is an empty directory the first time. The
// suite closes the store, sets the clock forward or back, and opens it again.
//
// Some rules begin with "one process". They rely on the directory's single owner: the
// process that opens the store knows that no holder is alive.
func RunDurable(t *testing.T, open func(t *testing.T, dir string, clock Clock) driver.Store) {
	for _, r := range durableRules {
		t.Run(r.name, func(t *testing.T) { r.run(newDurable(t, open)) })
	}
	t.Run("model", func(t *testing.T) { durableModel(t, open) })
}

// durable is a suite that can reopen its store.
type durable struct {
	*suite
	again func() driver.Store
}

func newDurable(t *testing.T, open func(*testing.T, string, Clock) driver.Store) *durable {
	t.Helper()
	dir := t.TempDir()
	d := &durable{suite: newSuite(t, func(t *testing.T, clock Clock) driver.Store { return open(t, dir, clock) })}
	d.again = func() driver.Store { return open(t, dir, d.clock) }
	if _, ok := d.store.(io.Closer); !ok {
		t.Fatalf("%T is no io.Closer: RunDurable is for stores that can be closed and opened again", d.store)
	}
	t.Cleanup(func() {
		if d.store != nil {
			d.close()
		}
	})
	return d
}

func (d *durable) close() {
	d.t.Helper()
	if err := d.store.(io.Closer).Close(); err != nil {
		d.t.Fatalf("Close: %v", err)
	}
	d.store = nil
}

// reopen closes the store, lets the wall clock go by away, negative for a clock
// that was set back, and opens the store again.
func (d *durable) reopen(away time.Duration) {
	d.t.Helper()
	d.probe() // the store saw this moment, and records it
	before := d.now()
	d.close()
	d.advance(away)
	d.store = d.again()
	d.probe()
	if d.now().Before(before) {
		d.t.Fatalf("reopened with the wall clock moved by %v: the store's time fell from %v to %v", away, before, d.now())
	}
	if wall := d.clock.Now(); d.now().Before(wall) {
		d.t.Fatalf("reopened: the store's time is %v, want at least the wall clock's %v", d.now(), wall)
	}
}

var durableRules = []struct {
	name string
	run  func(*durable)
}{
	{"settled stays settled", func(d *durable) {
		done, r := d.granted()
		done0 := d.want(complete(done, r.Token, "result"), driver.StatusOK)
		parked, r := d.granted()
		parked0 := d.want(park(parked, r.Token, "reason"), driver.StatusOK)
		for range 3 {
			d.reopen(time.Second)
			d.same("done", d.want(claim(done, 2), driver.StatusDone), done0)
			d.same("parked", d.want(claim(parked, 2), driver.StatusParked), parked0)
			d.same("retried", d.want(complete(done, done0.Token, "another"), driver.StatusOK), done0)
			d.want(complete(done, done0.Token-1, "another"), driver.StatusLost)
		}
	}},
	{"released stays released", func(d *durable) {
		id, r := d.granted()
		op := release(id, r.Token)
		op.Ambiguous = true
		want := d.want(op, driver.StatusOK)
		d.reopen(0)
		d.same("after a lost release", d.want(release(id, r.Token), driver.StatusLost), want)
		got := d.want(claim(id, 2), driver.StatusGranted)
		if got.Attempt != 1 || !got.Ambiguous || !got.FirstSeen.Equal(r.FirstSeen) {
			d.t.Errorf("got Attempt %d, Ambiguous %t, FirstSeen %v, want 1, true, %v", got.Attempt, got.Ambiguous, got.FirstSeen, r.FirstSeen)
		}
	}},
	{"values survive", func(d *durable) {
		id := driver.ID{0: 0xff, 15: 1}
		op := claim(id, 1<<63)
		op.Position = driver.Position{Source: "großer Strom/日本 \x00|", Partition: 1 << 30, Offset: 1<<53 + 1}
		op.Fingerprint = driver.Fingerprint{0, 0xff, 7: 1}
		r := d.want(op, driver.StatusGranted)
		result := make([]byte, 64<<10)
		for i := range result {
			result[i] = byte(i * 7)
		}
		end := complete(id, r.Token, string(result))
		want := d.want(end, driver.StatusOK)
		d.reopen(0)
		d.same("done", d.want(op, driver.StatusDone), want)
	}},
	{"tokens grow", func(d *durable) {
		id, r := d.granted()
		for i, step := range []func(){
			func() { d.reopen(0) },
			func() { d.want(release(id, r.Token), driver.StatusOK); d.reopen(0) },
			func() { d.want(complete(id, r.Token, "result"), driver.StatusOK); d.reopen(lease + ttl) },
			func() { d.want(release(id, r.Token), driver.StatusOK); d.reopen(-24 * time.Hour) },
			func() {
				d.want(park(id, r.Token, "reason"), driver.StatusOK)
				d.advance(lease + ttl)
				d.reopen(-24 * time.Hour)
			},
			func() {
				op := claim(d.id(), 1)
				op.Floor = r.Token + 1_000_000_000_000
				r = d.want(op, driver.StatusGranted)
				d.advance(lease + ttl) // only the high-water mark knows it now
				d.reopen(0)
			},
			func() {
				r = d.want(complete(d.id(), r.Token+1_000_000_000_000, "of another store"), driver.StatusOK)
				d.advance(lease + ttl)
				d.reopen(0)
			},
		} {
			step()
			next := d.want(claim(id, uint64(i+2)), driver.StatusGranted)
			if next.Token <= r.Token {
				d.t.Fatalf("Token after step %d: got %d, want more than %d", i, next.Token, r.Token)
			}
			r = next
		}
	}},
	{"one process: an orphan is claimable at once, and Ambiguous", func(d *durable) {
		orphan := func(id driver.ID, r driver.Record, nonce uint64) {
			d.t.Helper()
			got := d.want(claim(id, nonce), driver.StatusGranted)
			want := r
			want.Token, want.Nonce, want.Attempt, want.Ambiguous = got.Token, nonce, 1, true
			want.LeaseEnd, want.Expires = d.now().Add(lease), d.now().Add(lease+ttl)
			d.same("take-over of an orphan", got, want)
			if got.Token <= r.Token {
				d.t.Errorf("Token: got %d, want more than the orphan's %d", got.Token, r.Token)
			}
			d.want(claim(id, nonce+1), driver.StatusHeld)
		}
		plain, p := d.granted()
		own, o := d.granted()
		extended, e := d.granted()
		e = d.want(extend(extended, e.Token), driver.StatusOK)
		d.reopen(0)
		orphan(plain, p, 2)
		orphan(own, o, 1)
		orphan(extended, e, 2)
	}},
	{"a note stays, and the claim with it", func(d *durable) {
		id := d.id()
		first := claim(id, 1)
		first.Position = elsewhere
		r := d.want(first, driver.StatusGranted)
		d.want(release(id, r.Token), driver.StatusOK)
		r = d.want(noted(claim(id, 2), "note"), driver.StatusGranted)
		late := d.id()
		l := d.want(claim(late, 1), driver.StatusGranted)
		l = d.want(noted(extend(late, l.Token), "written later"), driver.StatusOK)
		d.want(extend(late, l.Token), driver.StatusOK)
		for range 2 {
			d.reopen(lease)
			d.same("held", d.want(claim(id, 3), driver.StatusHeld), r)
			d.same("held, by a note that was written later", d.want(claim(late, 3), driver.StatusHeld), l)
		}
		d.want(complete(id, r.Token, "late"), driver.StatusOK)
		d.want(release(late, l.Token), driver.StatusOK)
		d.want(claim(late, 3), driver.StatusGranted)
	}},
	{"what is kept for ever stays", func(d *durable) {
		check := d.keptForEver()
		d.reopen(0)
		d.reopen(century)
		check()
	}},
	{"unparked stays unparked", func(d *durable) {
		id, r := d.granted()
		op := park(id, r.Token, "reason")
		op.Ambiguous = true
		d.want(op, driver.StatusOK)
		d.reopen(0)
		want := d.want(unpark(id), driver.StatusOK)
		if !want.Ambiguous {
			d.t.Errorf("unparked after a reopen: not Ambiguous, want what the park said")
		}
		d.reopen(0)
		d.same("retried", d.want(unpark(id), driver.StatusOK), want)
		if got := d.want(claim(id, 2), driver.StatusGranted); !got.Ambiguous || got.Token <= want.Token {
			d.t.Errorf("got Ambiguous %t, token %d, want true and more than %d", got.Ambiguous, got.Token, want.Token)
		}
	}},
	{"one process: an orphan's token still speaks", func(d *durable) {
		done, c := d.granted()
		released, r := d.granted()
		d.reopen(0)
		d.want(extend(done, c.Token), driver.StatusLost)
		d.want(complete(done, c.Token, "late"), driver.StatusOK)
		d.want(claim(done, 2), driver.StatusDone)
		d.want(release(released, r.Token), driver.StatusOK)
		if got := d.want(claim(released, 2), driver.StatusGranted); got.Ambiguous || got.Attempt != 1 {
			d.t.Errorf("after the release: got Ambiguous %t, Attempt %d, want false and 1", got.Ambiguous, got.Attempt)
		}
	}},
	{"one process: an orphan stays one until it is claimed", func(d *durable) {
		id, _ := d.granted()
		d.reopen(0)
		d.reopen(0)
		if got := d.want(claim(id, 2), driver.StatusGranted); !got.Ambiguous || got.Attempt != 1 {
			d.t.Errorf("got Ambiguous %t, Attempt %d, want true and 1", got.Ambiguous, got.Attempt)
		}
		d.reopen(0)
		if got := d.want(claim(id, 3), driver.StatusGranted); !got.Ambiguous || got.Attempt != 2 {
			d.t.Errorf("the next orphan: got Ambiguous %t, Attempt %d, want true and 2", got.Ambiguous, got.Attempt)
		}
	}},
	{"vouch is the same", func(d *durable) {
		want := d.vouch()
		for _, away := range []time.Duration{0, time.Hour, -2 * time.Hour} {
			d.reopen(away)
			if got := d.vouch(); !sameVouch(got, want) {
				d.t.Errorf("Vouch after a reopen: got %+v, want %+v", got, want)
			}
		}
	}},
	{"longer TTL raises Since across a reopen", func(d *durable) {
		// The change comes with the restart, when no record is left.
		d.close()
		d.advance(3 * ttl)
		d.store = d.again()
		r := d.want(lasting(claim(d.id(), 1), 4*ttl), driver.StatusGranted)
		d.offset = r.FirstSeen.Sub(d.clock.Now())
		at, v := d.now(), d.vouch()
		if want := at.Add(-ttl); !v.Since.Equal(want) {
			d.t.Errorf("Since: got %v, want %v, the old TTL before", v.Since, want)
		}
		// It is not forgotten in the next one, and the TTL is not a longer one then.
		for range 4 {
			d.reopen(ttl / 2)
			d.bounded(at, ttl)
			d.want(lasting(claim(d.id(), 1), 4*ttl), driver.StatusGranted)
			d.bounded(at, ttl)
		}
		d.reopen(-2 * ttl)
		d.bounded(at, ttl)
		// An operation that changes no record tells the TTL, too.
		d.advance(4 * ttl)
		d.want(lasting(release(d.id(), r.Token), 5*ttl), driver.StatusLost)
		at = d.now()
		d.reopen(ttl)
		d.bounded(at, 4*ttl)
		d.reopen(4 * ttl)
		d.bounded(at, 4*ttl)
	}},
	{"a wall clock that is set back revives and forgets nothing", func(d *durable) {
		gone, g := d.granted()
		d.want(complete(gone, g.Token, "result"), driver.StatusOK)
		d.advance(ttl)
		id, r := d.granted()
		d.want(complete(id, r.Token, "result"), driver.StatusOK)
		d.reopen(-3 * ttl)
		d.fresh(gone, g.Token)
		d.want(claim(id, 2), driver.StatusDone)
		d.advance(ttl / 2)
		d.want(claim(id, 2), driver.StatusDone)
		d.advance(ttl / 2)
		d.fresh(id, r.Token)
	}},
	{"time passes while the store is closed", func(d *durable) {
		id, r := d.granted()
		d.want(complete(id, r.Token, "result"), driver.StatusOK)
		d.reopen(ttl - tick)
		d.want(claim(id, 2), driver.StatusDone)
		d.reopen(tick)
		d.fresh(id, r.Token)
	}},
	{"forgotten stays forgotten", func(d *durable) {
		if in, ok := d.store.(driver.Inspector); ok {
			id, r := d.granted()
			d.want(complete(id, r.Token, "result"), driver.StatusOK)
			d.forget(in, id)
			d.reopen(0)
			d.fresh(id, r.Token)
		}
	}},
	{"lookup after a reopen", func(d *durable) {
		if _, ok := d.store.(driver.Inspector); !ok {
			return
		}
		records := d.oneOfEach()
		d.reopen(0)
		in := d.store.(driver.Inspector)
		seen := make(map[driver.ID]int)
		for r, err := range in.Records(d.t.Context()) {
			if err != nil {
				d.t.Fatal(err)
			}
			seen[r.ID]++
		}
		for id, want := range records {
			if seen[id] != 1 {
				d.t.Errorf("record that is %v: seen %d times, want once", want.State, seen[id])
			}
			if want.State == driver.StateClaimed {
				if err := in.ForceForget(d.t.Context(), []driver.ID{id}); err != nil {
					d.t.Fatalf("ForceForget of an orphan: %v", err)
				}
				want = driver.Record{}
			}
			d.lookup(in, id, want)
		}
	}},
	{"a closed store acknowledges nothing", func(d *durable) {
		closed := d.store
		d.close()
		if replies, err := closed.Apply(d.t.Context(), []driver.Op{claim(driver.ID{1}, 1)}); err == nil {
			d.t.Errorf("Apply after Close: got %+v, want an error", replies)
		}
	}},
}

// durableModel is Model with reopening among the actions.
func durableModel(t *testing.T, open func(*testing.T, string, Clock) driver.Store) {
	d := newDurable(t, open)
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(d.suite)
		actions := w.actions()
		actions["reopen"] = func(rt *rapid.T) {
			d.reopen(rapid.SampledFrom([]time.Duration{0, 0, time.Second, -time.Second, -ttl}).Draw(rt, "away"))
			w.model.reopen(d.now())
		}
		for i := range 5 { // each action is as likely as the others, and opening is slow
			actions[fmt.Sprint("apply ", i)] = w.apply
		}
		rt.Repeat(actions)
	})
}

// reopen ends all leases: no holder lives. The store need not remember that a
// lease was extended, only that it was granted, and what its note says.
func (m model) reopen(now time.Time) {
	for id, possible := range m.records {
		var after []driver.Record
		for _, r := range possible {
			if r.State != driver.StateClaimed {
				after = append(after, r)
				continue
			}
			if r.LeaseEnd.After(now) {
				r.LeaseEnd = now
			}
			after = append(after, r)
			if granted := m.granted[id]; !granted.Equal(r.Expires) {
				r.Expires = granted
				after = append(after, r)
			}
		}
		m.records[id] = after
	}
}
