package dedup_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

var (
	stepNow    = time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC)
	stepID     = dedup.NewID("orders", "1")
	stepPrint  = dedup.Fingerprint{1}
	stepPlace  = dedup.Position{Source: "orders", Offset: 1}
	otherPlace = dedup.Position{Source: "orders", Offset: 2}
)

const (
	stepLease = 30 * time.Second
	stepTTL   = time.Hour
	stepNext  = dedup.Token(20) // of the next grant
	stepToken = dedup.Token(10) // of the record
)

// stepRecord is a record of each state, made ten seconds ago under stepToken.
func stepRecord(state dedup.State) dedup.Record {
	made := stepNow.Add(-10 * time.Second)
	r := dedup.Record{
		State: state, Token: stepToken, Nonce: 1, Attempt: 2,
		Expires: made.Add(stepTTL), FirstSeen: made, First: stepPlace, Fingerprint: stepPrint,
	}
	switch state {
	case dedup.StateFree:
		return dedup.Record{}
	case dedup.StateClaimed:
		r.LeaseEnd = made.Add(stepLease)
		r.Expires = r.LeaseEnd.Add(stepTTL)
	case dedup.StateDone, dedup.StateParked:
		r.Nonce, r.Result = 0, []byte("recorded")
	case dedup.StateReleased:
	}
	return r
}

func stepOp(kind dedup.OpKind, token dedup.Token) dedup.Op {
	op := dedup.Op{Kind: kind, ID: stepID, Token: token, TTL: stepTTL}
	switch kind {
	case dedup.OpClaim:
		op.Token, op.Nonce = 0, 2
		op.Lease, op.Fingerprint, op.Position = stepLease, stepPrint, otherPlace
	case dedup.OpExtend:
		op.Lease = stepLease
	case dedup.OpComplete, dedup.OpPark:
		op.Fingerprint, op.Position, op.Result = stepPrint, otherPlace, []byte("new")
	case dedup.OpRelease:
	}
	return op
}

// TestStepTable holds each pair of state and operation to the table of the
// design. The store suite has the details.
func TestStepTable(t *testing.T) {
	ended := stepRecord(dedup.StateClaimed)
	ended.LeaseEnd = stepNow // from that moment on it does not live
	noted := stepRecord(dedup.StateClaimed)
	noted.Note = []byte("note")
	notedEnded := ended
	notedEnded.Note = []byte("note")
	const mine, other = stepToken, stepToken - 1
	for _, c := range []struct {
		name   string
		record dedup.Record
		op     dedup.Op
		status dedup.Status
		state  dedup.State
		token  dedup.Token
	}{
		{"claim free", stepRecord(dedup.StateFree), stepOp(dedup.OpClaim, 0), dedup.StatusGranted, dedup.StateClaimed, stepNext},
		{"claim claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpClaim, 0), dedup.StatusHeld, dedup.StateClaimed, mine},
		{"claim ended", ended, stepOp(dedup.OpClaim, 0), dedup.StatusGranted, dedup.StateClaimed, stepNext},
		{"claim released", stepRecord(dedup.StateReleased), stepOp(dedup.OpClaim, 0), dedup.StatusGranted, dedup.StateClaimed, stepNext},
		{"claim done", stepRecord(dedup.StateDone), stepOp(dedup.OpClaim, 0), dedup.StatusDone, dedup.StateDone, mine},
		{"claim parked", stepRecord(dedup.StateParked), stepOp(dedup.OpClaim, 0), dedup.StatusParked, dedup.StateParked, mine},

		{"extend free", stepRecord(dedup.StateFree), stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateFree, 0},
		{"extend claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpExtend, mine), dedup.StatusOK, dedup.StateClaimed, mine},
		{"extend another's", stepRecord(dedup.StateClaimed), stepOp(dedup.OpExtend, other), dedup.StatusLost, dedup.StateClaimed, mine},
		{"extend ended", ended, stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateClaimed, mine},
		{"extend released", stepRecord(dedup.StateReleased), stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateReleased, mine},
		{"extend done", stepRecord(dedup.StateDone), stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateDone, mine},
		{"extend parked", stepRecord(dedup.StateParked), stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateParked, mine},

		{"complete free", stepRecord(dedup.StateFree), stepOp(dedup.OpComplete, other), dedup.StatusOK, dedup.StateDone, other},
		{"complete claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"complete another's", stepRecord(dedup.StateClaimed), stepOp(dedup.OpComplete, other), dedup.StatusLost, dedup.StateClaimed, mine},
		{"complete ended", ended, stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"complete released", stepRecord(dedup.StateReleased), stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"complete what another released", stepRecord(dedup.StateReleased), stepOp(dedup.OpComplete, other), dedup.StatusLost, dedup.StateReleased, mine},
		{"complete done", stepRecord(dedup.StateDone), stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"complete what another completed", stepRecord(dedup.StateDone), stepOp(dedup.OpComplete, other), dedup.StatusLost, dedup.StateDone, mine},
		{"complete parked", stepRecord(dedup.StateParked), stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateParked, mine},

		{"park free", stepRecord(dedup.StateFree), stepOp(dedup.OpPark, other), dedup.StatusOK, dedup.StateParked, other},
		{"park claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpPark, mine), dedup.StatusOK, dedup.StateParked, mine},
		{"park another's", stepRecord(dedup.StateClaimed), stepOp(dedup.OpPark, other), dedup.StatusLost, dedup.StateClaimed, mine},
		{"park done", stepRecord(dedup.StateDone), stepOp(dedup.OpPark, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"park what another completed", stepRecord(dedup.StateDone), stepOp(dedup.OpPark, other), dedup.StatusLost, dedup.StateDone, mine},

		{"release free", stepRecord(dedup.StateFree), stepOp(dedup.OpRelease, mine), dedup.StatusLost, dedup.StateFree, 0},
		{"release claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpRelease, mine), dedup.StatusOK, dedup.StateReleased, mine},
		{"release another's", stepRecord(dedup.StateClaimed), stepOp(dedup.OpRelease, other), dedup.StatusLost, dedup.StateClaimed, mine},
		{"release ended", ended, stepOp(dedup.OpRelease, mine), dedup.StatusOK, dedup.StateReleased, mine},
		{"release released", stepRecord(dedup.StateReleased), stepOp(dedup.OpRelease, mine), dedup.StatusLost, dedup.StateReleased, mine},
		{"release done", stepRecord(dedup.StateDone), stepOp(dedup.OpRelease, mine), dedup.StatusLost, dedup.StateDone, mine},
		{"release parked", stepRecord(dedup.StateParked), stepOp(dedup.OpRelease, mine), dedup.StatusLost, dedup.StateParked, mine},

		{"unpark free", stepRecord(dedup.StateFree), stepOp(dedup.OpUnpark, 0), dedup.StatusOK, dedup.StateFree, 0},
		{"unpark claimed", stepRecord(dedup.StateClaimed), stepOp(dedup.OpUnpark, 0), dedup.StatusHeld, dedup.StateClaimed, mine},
		{"unpark ended", ended, stepOp(dedup.OpUnpark, 0), dedup.StatusHeld, dedup.StateClaimed, mine},
		{"unpark released", stepRecord(dedup.StateReleased), stepOp(dedup.OpUnpark, 0), dedup.StatusOK, dedup.StateReleased, mine},
		{"unpark done", stepRecord(dedup.StateDone), stepOp(dedup.OpUnpark, 0), dedup.StatusDone, dedup.StateDone, mine},
		{"unpark parked", stepRecord(dedup.StateParked), stepOp(dedup.OpUnpark, 0), dedup.StatusOK, dedup.StateReleased, stepNext},

		{"claim noted", noted, stepOp(dedup.OpClaim, 0), dedup.StatusHeld, dedup.StateClaimed, mine},
		{"claim noted and ended", notedEnded, stepOp(dedup.OpClaim, 0), dedup.StatusHeld, dedup.StateClaimed, mine},
		{"extend noted and ended", notedEnded, stepOp(dedup.OpExtend, mine), dedup.StatusLost, dedup.StateClaimed, mine},
		{"complete noted and ended", notedEnded, stepOp(dedup.OpComplete, mine), dedup.StatusOK, dedup.StateDone, mine},
		{"release noted and ended", notedEnded, stepOp(dedup.OpRelease, mine), dedup.StatusOK, dedup.StateReleased, mine},
		{"unpark noted and ended", notedEnded, stepOp(dedup.OpUnpark, 0), dedup.StatusHeld, dedup.StateClaimed, mine},

		{"no such operation", stepRecord(dedup.StateClaimed), stepOp(0, mine), dedup.StatusLost, dedup.StateClaimed, mine},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, reply := dedup.Step(c.record, c.op, stepNow, stepNext)
			if reply.Status != c.status || got.State != c.state || got.Token != c.token {
				t.Errorf("got %v, state %v, token %d; want %v, state %v, token %d",
					reply.Status, got.State, got.Token, c.status, c.state, c.token)
			}
			if !reflect.DeepEqual(reply.Record, got) {
				t.Errorf("reply: got record %+v, want the one to keep, %+v", reply.Record, got)
			}
			refused := c.status != dedup.StatusGranted && c.status != dedup.StatusOK
			settled := (c.record.State == dedup.StateDone || c.record.State == dedup.StateParked) && c.op.Kind != dedup.OpUnpark
			if (refused || settled) && !reflect.DeepEqual(got, c.record) {
				t.Errorf("a refused or repeated operation changed the record:\ngot  %+v\nwant %+v", got, c.record)
			}
		})
	}
}

func TestStepExpiredIsFree(t *testing.T) {
	for _, state := range []dedup.State{dedup.StateClaimed, dedup.StateReleased, dedup.StateDone, dedup.StateParked} {
		for kind := dedup.OpClaim; kind <= dedup.OpUnpark; kind++ {
			r := stepRecord(state)
			r.Expires, r.LeaseEnd = stepNow, time.Time{}
			op := stepOp(kind, stepToken)
			op.Fingerprint = dedup.Fingerprint{9}
			got, reply := dedup.Step(r, op, stepNow, stepNext)
			want, wantReply := dedup.Step(dedup.Record{}, op, stepNow, stepNext)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(reply, wantReply) {
				t.Errorf("%v of an expired record of state %v: got %+v, want that of a free key, %+v", kind, state, got, want)
			}
			r.Expires = stepNow.Add(1)
			if _, reply := dedup.Step(r, op, stepNow, stepNext); kind == dedup.OpClaim && reply.Status != dedup.StatusConflict {
				t.Errorf("claim of a record of state %v before it expires: got %v, want conflict", state, reply.Status)
			}
		}
	}
}

// TestStepKeepsFingerprint: an operation that settles does not change what the
// claim said of the payload.
func TestStepKeepsFingerprint(t *testing.T) {
	for _, kind := range []dedup.OpKind{dedup.OpComplete, dedup.OpPark} {
		op := stepOp(kind, stepToken)
		op.Fingerprint = dedup.Fingerprint{9}
		got, reply := dedup.Step(stepRecord(dedup.StateClaimed), op, stepNow, stepNext)
		if reply.Status != dedup.StatusOK || got.Fingerprint != stepPrint || got.First != stepPlace {
			t.Errorf("%v: got %v, fingerprint %x, first %v; want ok and those of the claim", kind, reply.Status, got.Fingerprint, got.First)
		}
	}
}

// TestStepExtremes: durations that no clock can add up last as long as one can, and
// negative ones are none.
func TestStepExtremes(t *testing.T) {
	const longest = time.Duration(math.MaxInt64)
	for _, c := range []struct {
		lease, ttl    time.Duration
		ends, expires time.Duration // from now
	}{
		{longest, longest, longest, longest},
		{stepLease, longest, stepLease, longest},
		{longest, stepTTL, longest, longest},
		{longest - 5, 7, longest - 5, longest},
		{math.MinInt64, math.MinInt64, 0, 0},
		{-1, stepTTL, 0, stepTTL},
		{stepLease, -1, stepLease, stepLease},
	} {
		op := stepOp(dedup.OpClaim, 0)
		op.Lease, op.TTL = c.lease, c.ttl
		r, reply := dedup.Step(dedup.Record{}, op, stepNow, stepNext)
		if reply.Status != dedup.StatusGranted || !r.LeaseEnd.Equal(stepNow.Add(c.ends)) || !r.Expires.Equal(stepNow.Add(c.expires)) {
			t.Errorf("lease %v, TTL %v: got %v, lease until %v, expires %v; want %v and %v from now", c.lease, c.ttl, reply.Status, r.LeaseEnd, r.Expires, c.ends, c.expires)
		}
		for _, kind := range []dedup.OpKind{dedup.OpComplete, dedup.OpPark, dedup.OpRelease} {
			op := stepOp(kind, stepToken)
			op.TTL = c.ttl
			if r, _ := dedup.Step(stepRecord(dedup.StateClaimed), op, stepNow, stepNext); !r.Expires.Equal(stepNow.Add(max(c.ttl, 0))) {
				t.Errorf("%v with TTL %v: got expires %v, want %v from now", kind, c.ttl, r.Expires, max(c.ttl, 0))
			}
		}
	}
}

func TestStepNoteTooLong(t *testing.T) {
	for _, kind := range []dedup.OpKind{dedup.OpClaim, dedup.OpExtend} {
		op := stepOp(kind, stepToken)
		op.Note = make([]byte, dedup.MaxNote+1)
		for state := dedup.StateFree; state <= dedup.StateParked; state++ {
			r, reply := dedup.Step(stepRecord(state), op, stepNow, stepNext)
			if reply.Err == nil || reply.Status != 0 || !reflect.DeepEqual(r, stepRecord(state)) {
				t.Errorf("%v of state %v: got %+v, record %+v, want an error and no change", kind, state, reply, r)
			}
		}
	}
}

// TestStepIsPure: neither record nor operation is changed, and the same input has
// the same answer.
func TestStepIsPure(t *testing.T) {
	for state := dedup.StateFree; state <= dedup.StateParked; state++ {
		for kind := dedup.OpClaim; kind <= dedup.OpUnpark; kind++ {
			r, op := stepRecord(state), stepOp(kind, stepToken)
			first, firstReply := dedup.Step(r, op, stepNow, stepNext)
			second, secondReply := dedup.Step(r, op, stepNow, stepNext)
			if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(firstReply, secondReply) {
				t.Errorf("%v of state %v: got %+v, then %+v", kind, state, first, second)
			}
			if !reflect.DeepEqual(r, stepRecord(state)) || !reflect.DeepEqual(op, stepOp(kind, stepToken)) {
				t.Errorf("%v of state %v changed its arguments", kind, state)
			}
		}
	}
}

func TestNextToken(t *testing.T) {
	now := stepNow
	micros := dedup.Token(now.UnixMicro())
	for _, c := range []struct {
		name        string
		high, floor dedup.Token
		now         time.Time
		want        dedup.Token
	}{
		{"an empty store starts at the clock", 0, 0, now, micros},
		{"above the highest", micros + 5, 0, now, micros + 6},
		{"above the floor", 3, micros + 9, now, micros + 10},
		{"a clock before 1970 counts for nothing", 7, 3, time.UnixMicro(-5), 8},
		{"never zero", 0, 0, time.Unix(0, 0), 1},
		{"large", math.MaxUint64 - 1, 0, now, math.MaxUint64},
	} {
		if got := dedup.NextToken(c.high, c.floor, c.now); got != c.want {
			t.Errorf("%s: NextToken(%d, %d, %v): got %d, want %d", c.name, c.high, c.floor, c.now, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		value fmt.Stringer
		want  string
	}{
		{dedup.OpClaim, "claim"},
		{dedup.OpExtend, "extend"},
		{dedup.OpComplete, "complete"},
		{dedup.OpPark, "park"},
		{dedup.OpRelease, "release"},
		{dedup.OpUnpark, "unpark"},
		{dedup.OpKind(0), "unknown"},
		{dedup.OpKind(200), "unknown"},
		{dedup.StatusGranted, "granted"},
		{dedup.StatusHeld, "held"},
		{dedup.StatusDone, "done"},
		{dedup.StatusParked, "parked"},
		{dedup.StatusConflict, "conflict"},
		{dedup.StatusOK, "ok"},
		{dedup.StatusLost, "lost"},
		{dedup.StateFree, "free"},
		{dedup.StateClaimed, "claimed"},
		{dedup.StateReleased, "released"},
		{dedup.StateDone, "done"},
		{dedup.StateParked, "parked"},
		{dedup.State(9), "unknown"},
		{dedup.Processed, "processed"},
		{dedup.Duplicate, "duplicate"},
		{dedup.Busy, "busy"},
		{dedup.Failed, "failed"},
		{dedup.Parked, "parked"},
		{dedup.Conflict, "conflict"},
		{dedup.Unkeyed, "unkeyed"},
		{dedup.Stale, "stale"},
		{dedup.Ambiguous, "ambiguous"},
		{dedup.Uncertain, "uncertain"},
		{dedup.Unavailable, "unavailable"},
		{dedup.AlreadyParked, "already_parked"},
		{dedup.PolicyDefault, "default"},
		{dedup.PolicyProcess, "process"},
		{dedup.PolicyPark, "park"},
		{dedup.PolicySkip, "skip"},
		{dedup.PolicyHalt, "halt"},
	} {
		if got := c.value.String(); got != c.want {
			t.Errorf("%T: got %q, want %q", c.value, got, c.want)
		}
	}
}
