package dedup_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// TestStepRecords holds the whole record after each operation that takes effect:
// what it changes, what it clears, and what it keeps.
func TestStepRecords(t *testing.T) {
	type record = dedup.Record
	// with returns a record of the state that every field is set in which it can have.
	with := func(state dedup.State, set func(*record)) record {
		r := stepRecord(state)
		r.Tag = 3
		switch state {
		case dedup.StateClaimed:
			r.Held, r.Note = otherPlace, []byte("note")
		case dedup.StateDone, dedup.StateParked:
			r.Omitted = true
		case dedup.StateFree, dedup.StateReleased:
		}
		if set != nil {
			set(&r)
		}
		return r
	}
	lapsed := func(r *record) { r.LeaseEnd, r.Note = stepNow, nil }
	ambiguous := func(r *record) { r.Ambiguous = true }
	op := func(kind dedup.OpKind, set func(*dedup.Op)) dedup.Op {
		o := stepOp(kind, stepToken)
		if kind == dedup.OpClaim {
			o.Tag = 3
		}
		if set != nil {
			set(&o)
		}
		return o
	}
	granted := func(r *record) {
		r.State, r.Token, r.Nonce, r.Held, r.Note = dedup.StateClaimed, stepNext, 2, otherPlace, nil
		r.LeaseEnd = stepNow.Add(stepLease)
		r.Expires = r.LeaseEnd.Add(stepTTL)
	}
	ended := func(state dedup.State) func(*record) {
		return func(r *record) {
			r.State, r.LeaseEnd, r.Held, r.Note = state, time.Time{}, dedup.Position{}, nil
			r.Expires = stepNow.Add(stepTTL)
		}
	}
	for _, c := range []struct {
		name   string
		record record
		op     dedup.Op
		change []func(*record)
	}{
		{"claim free", record{}, op(dedup.OpClaim, func(o *dedup.Op) { o.Note = make([]byte, dedup.MaxNote) }), []func(*record){granted, func(r *record) {
			r.FirstSeen, r.First, r.Fingerprint, r.Tag, r.Note = stepNow, otherPlace, stepPrint, 3, make([]byte, dedup.MaxNote)
		}}},
		{"take over", with(dedup.StateClaimed, lapsed), op(dedup.OpClaim, nil), []func(*record){granted, ambiguous, func(r *record) { r.Attempt = 3 }}},
		{"take over with the nonce of the run that died", with(dedup.StateClaimed, lapsed), op(dedup.OpClaim, func(o *dedup.Op) { o.Nonce = 1 }),
			[]func(*record){granted, ambiguous, func(r *record) { r.Nonce, r.Attempt = 1, 3 }}},
		{"claim released", with(dedup.StateReleased, ambiguous), op(dedup.OpClaim, nil), []func(*record){granted}},
		{"claim released, another tag and payload", with(dedup.StateReleased, nil), op(dedup.OpClaim, func(o *dedup.Op) { o.Tag, o.Fingerprint = 4, dedup.Fingerprint{9} }),
			[]func(*record){granted, func(r *record) { r.Tag, r.Fingerprint = 4, dedup.Fingerprint{9} }}},
		{"claim again, whose first reply did not arrive", with(dedup.StateClaimed, nil), op(dedup.OpClaim, func(o *dedup.Op) { o.Nonce = 1 }), nil},

		{"extend", with(dedup.StateClaimed, nil), op(dedup.OpExtend, nil), []func(*record){func(r *record) {
			r.LeaseEnd = stepNow.Add(stepLease)
			r.Expires = r.LeaseEnd.Add(stepTTL)
		}}},
		{"extend with a note", with(dedup.StateClaimed, nil), op(dedup.OpExtend, func(o *dedup.Op) { o.Note = []byte("new") }), []func(*record){func(r *record) {
			r.LeaseEnd, r.Note = stepNow.Add(stepLease), []byte("new")
			r.Expires = r.LeaseEnd.Add(stepTTL)
		}}},

		{"complete", with(dedup.StateClaimed, ambiguous), op(dedup.OpComplete, func(o *dedup.Op) { o.Omitted = true }), []func(*record){ended(dedup.StateDone), func(r *record) {
			r.Nonce, r.Ambiguous, r.Result, r.Omitted = 0, false, []byte("new"), true
		}}},
		{"complete what is forgotten", record{}, op(dedup.OpComplete, func(o *dedup.Op) { o.Tag = 3 }), []func(*record){ended(dedup.StateDone), func(r *record) {
			r.Token, r.FirstSeen, r.First, r.Fingerprint, r.Tag, r.Result = stepToken, stepNow, otherPlace, stepPrint, 3, []byte("new")
		}}},
		{"park", with(dedup.StateClaimed, nil), op(dedup.OpPark, nil), []func(*record){ended(dedup.StateParked), func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},
		{"park what is ambiguous", with(dedup.StateClaimed, ambiguous), op(dedup.OpPark, nil), []func(*record){ended(dedup.StateParked), func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},
		{"park as ambiguous", with(dedup.StateClaimed, nil), op(dedup.OpPark, func(o *dedup.Op) { o.Ambiguous = true }),
			[]func(*record){ended(dedup.StateParked), ambiguous, func(r *record) { r.Nonce, r.Result = 0, []byte("new") }}},

		{"release", with(dedup.StateClaimed, ambiguous), op(dedup.OpRelease, nil), []func(*record){ended(dedup.StateReleased), func(r *record) { r.Attempt = 3 }}},
		{"release as ambiguous", with(dedup.StateClaimed, nil), op(dedup.OpRelease, func(o *dedup.Op) { o.Ambiguous = true }),
			[]func(*record){ended(dedup.StateReleased), ambiguous, func(r *record) { r.Attempt = 3 }}},
		{"release uncounted", with(dedup.StateClaimed, nil), op(dedup.OpRelease, func(o *dedup.Op) { o.Uncounted = true }), []func(*record){ended(dedup.StateReleased)}},

		{"unpark", with(dedup.StateParked, nil), op(dedup.OpUnpark, nil), []func(*record){ended(dedup.StateReleased), func(r *record) {
			r.Token, r.Attempt, r.Result, r.Omitted = stepNext, 0, nil, false
		}}},
		{"unpark what is ambiguous", with(dedup.StateParked, ambiguous), op(dedup.OpUnpark, nil), []func(*record){ended(dedup.StateReleased), func(r *record) {
			r.Token, r.Attempt, r.Result, r.Omitted = stepNext, 0, nil, false
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.record
			for _, change := range c.change {
				change(&want)
			}
			if got, _ := dedup.Step(c.record, c.op, stepNow, stepNext); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// TestStepTags: fingerprints made under another name are not compared, whatever the
// state.
func TestStepTags(t *testing.T) {
	for state, want := range map[dedup.State]dedup.Status{
		dedup.StateClaimed: dedup.StatusHeld, dedup.StateReleased: dedup.StatusGranted,
		dedup.StateDone: dedup.StatusDone, dedup.StateParked: dedup.StatusParked,
	} {
		op := stepOp(dedup.OpClaim, 0)
		op.Fingerprint = dedup.Fingerprint{9}
		if _, reply := dedup.Step(stepRecord(state), op, stepNow, stepNext); reply.Status != dedup.StatusConflict {
			t.Errorf("claim of state %v with another payload: got %v, want conflict", state, reply.Status)
		}
		op.Tag = 4
		if _, reply := dedup.Step(stepRecord(state), op, stepNow, stepNext); reply.Status != want {
			t.Errorf("claim of state %v with another payload, under another tag: got %v, want %v", state, reply.Status, want)
		}
	}
}
