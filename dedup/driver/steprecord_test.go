package driver_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// TestStepRecords holds the whole record after each operation that takes effect: the
// fields that the operation changes, clears and keeps.
func TestStepRecords(t *testing.T) {
	type record = driver.Record
	// with returns a record of the state that every field is set in which it can have.
	with := func(state driver.State, set func(*record)) record {
		r := stepRecord(state)
		r.Tag = 3
		switch state {
		case driver.StateClaimed:
			r.Held, r.Note = otherPlace, []byte("note")
		case driver.StateDone, driver.StateParked:
			r.Omitted = true
		case driver.StateFree, driver.StateReleased:
		}
		if set != nil {
			set(&r)
		}
		return r
	}
	lapsed := func(r *record) { r.LeaseEnd, r.Note = stepNow, nil }
	ambiguous := func(r *record) { r.Ambiguous = true }
	op := func(kind driver.OpKind, set func(*driver.Op)) driver.Op {
		o := stepOp(kind, stepToken)
		if kind == driver.OpClaim {
			o.Tag = 3
		}
		if set != nil {
			set(&o)
		}
		return o
	}
	granted := func(r *record) {
		r.State, r.Token, r.Nonce, r.Held, r.Note = driver.StateClaimed, stepNext, 2, otherPlace, nil
		r.LeaseEnd = stepNow.Add(stepLease)
		r.Expires = r.LeaseEnd.Add(stepTTL)
	}
	ended := func(state driver.State) func(*record) {
		return func(r *record) {
			r.State, r.LeaseEnd, r.Held, r.Note = state, time.Time{}, driver.Position{}, nil
			r.Expires = stepNow.Add(stepTTL)
		}
	}
	for _, c := range []struct {
		name   string
		record record
		op     driver.Op
		change []func(*record)
	}{
		{"claim free", record{}, op(driver.OpClaim, func(o *driver.Op) { o.Note = make([]byte, driver.MaxNote) }), []func(*record){granted, func(r *record) {
			r.FirstSeen, r.First, r.Fingerprint, r.Tag, r.Note = stepNow, otherPlace, stepPrint, 3, make([]byte, driver.MaxNote)
		}}},
		{"take over", with(driver.StateClaimed, lapsed), op(driver.OpClaim, nil), []func(*record){granted, ambiguous, func(r *record) { r.Attempt = 3 }}},
		{"take over with the nonce of the run that died", with(driver.StateClaimed, lapsed), op(driver.OpClaim, func(o *driver.Op) { o.Nonce = 1 }),
			[]func(*record){granted, ambiguous, func(r *record) { r.Nonce, r.Attempt = 1, 3 }}},
		{"claim released", with(driver.StateReleased, ambiguous), op(driver.OpClaim, nil), []func(*record){granted}},
		{"claim released, another tag and payload", with(driver.StateReleased, nil), op(driver.OpClaim, func(o *driver.Op) { o.Tag, o.Fingerprint = 4, driver.Fingerprint{9} }),
			[]func(*record){granted, func(r *record) { r.Tag, r.Fingerprint = 4, driver.Fingerprint{9} }}},
		{"claim again, whose first reply did not arrive", with(driver.StateClaimed, nil), op(driver.OpClaim, func(o *driver.Op) { o.Nonce = 1 }), nil},

		{"extend", with(driver.StateClaimed, nil), op(driver.OpExtend, nil), []func(*record){func(r *record) {
			r.LeaseEnd = stepNow.Add(stepLease)
			r.Expires = r.LeaseEnd.Add(stepTTL)
		}}},
		{"extend with a note", with(driver.StateClaimed, nil), op(driver.OpExtend, func(o *driver.Op) { o.Note = []byte("new") }), []func(*record){func(r *record) {
			r.LeaseEnd, r.Note = stepNow.Add(stepLease), []byte("new")
			r.Expires = r.LeaseEnd.Add(stepTTL)
		}}},

		{"complete", with(driver.StateClaimed, ambiguous), op(driver.OpComplete, func(o *driver.Op) { o.Omitted = true }), []func(*record){ended(driver.StateDone), func(r *record) {
			r.Nonce, r.Ambiguous, r.Result, r.Omitted = 0, false, []byte("new"), true
		}}},
		{"complete what is forgotten", record{}, op(driver.OpComplete, func(o *driver.Op) { o.Tag = 3 }), []func(*record){ended(driver.StateDone), func(r *record) {
			r.Token, r.FirstSeen, r.First, r.Fingerprint, r.Tag, r.Result = stepToken, stepNow, otherPlace, stepPrint, 3, []byte("new")
		}}},
		{"park", with(driver.StateClaimed, nil), op(driver.OpPark, nil), []func(*record){ended(driver.StateParked), func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},
		{"park what is ambiguous", with(driver.StateClaimed, ambiguous), op(driver.OpPark, nil), []func(*record){ended(driver.StateParked), func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},
		{"park as ambiguous", with(driver.StateClaimed, nil), op(driver.OpPark, func(o *driver.Op) { o.Ambiguous = true }),
			[]func(*record){ended(driver.StateParked), ambiguous, func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},

		{"release", with(driver.StateClaimed, ambiguous), op(driver.OpRelease, nil), []func(*record){ended(driver.StateReleased), func(r *record) { r.Attempt = 3 }}},
		{"release as ambiguous", with(driver.StateClaimed, nil), op(driver.OpRelease, func(o *driver.Op) { o.Ambiguous = true }),
			[]func(*record){ended(driver.StateReleased), ambiguous, func(r *record) { r.Attempt = 3 }}},
		{"release uncounted", with(driver.StateClaimed, nil), op(driver.OpRelease, func(o *driver.Op) { o.Uncounted = true }), []func(*record){ended(driver.StateReleased)}},

		{"unpark", with(driver.StateParked, nil), op(driver.OpUnpark, nil), []func(*record){ended(driver.StateReleased), func(r *record) {
			r.Token, r.Attempt, r.Result, r.Omitted = stepNext, 0, nil, false
		}}},
		{"unpark what is ambiguous", with(driver.StateParked, ambiguous), op(driver.OpUnpark, nil), []func(*record){ended(driver.StateReleased), func(r *record) {
			r.Token, r.Attempt, r.Result, r.Omitted = stepNext, 0, nil, false
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.record
			for _, change := range c.change {
				change(&want)
			}
			if got, _ := driver.Step(c.record, c.op, stepNow, stepNext); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestStepTags: fingerprints made under another name are not compared, whatever the
// state.
func TestStepTags(t *testing.T) {
	for state, want := range map[driver.State]driver.Status{
		driver.StateClaimed: driver.StatusHeld, driver.StateReleased: driver.StatusGranted,
		driver.StateDone: driver.StatusDone, driver.StateParked: driver.StatusParked,
	} {
		op := stepOp(driver.OpClaim, 0)
		op.Fingerprint = driver.Fingerprint{9}
		if _, reply := driver.Step(stepRecord(state), op, stepNow, stepNext); reply.Status != driver.StatusConflict {
			t.Errorf("claim of state %v with another payload: got %v, want conflict", state, reply.Status)
		}
		op.Tag = 4
		if _, reply := driver.Step(stepRecord(state), op, stepNow, stepNext); reply.Status != want {
			t.Errorf("claim of state %v with another payload, under another tag: got %v, want %v", state, reply.Status, want)
		}
	}
}
