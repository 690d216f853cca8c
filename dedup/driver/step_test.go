package driver_test

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
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
func stepRecord(state driver.State) driver.Record {
	made := stepNow.Add(-10 * time.Second)
	r := driver.Record{
		State: state, Token: stepToken, Nonce: 1, Attempt: 2,
		Expires: made.Add(stepTTL), FirstSeen: made, First: stepPlace, Fingerprint: stepPrint,
	}
	switch state {
	case driver.StateFree:
		return driver.Record{}
	case driver.StateClaimed:
		r.LeaseEnd = made.Add(stepLease)
		r.Expires = r.LeaseEnd.Add(stepTTL)
	case driver.StateDone, driver.StateParked:
		r.Nonce, r.Result = 0, []byte("recorded")
	case driver.StateReleased:
	}
	return r
}

func stepOp(kind driver.OpKind, token dedup.Token) driver.Op {
	op := driver.Op{Kind: kind, ID: stepID, Token: token, TTL: stepTTL}
	switch kind {
	case driver.OpClaim:
		op.Token, op.Nonce = 0, 2
		op.Lease, op.Fingerprint, op.Position = stepLease, stepPrint, otherPlace
	case driver.OpExtend:
		op.Lease = stepLease
	case driver.OpComplete, driver.OpPark:
		op.Fingerprint, op.Position, op.Result = stepPrint, otherPlace, []byte("new")
	case driver.OpRelease:
	}
	return op
}

// TestStepTable holds each pair of state and operation to the table of the
// design. The store suite has the details.
func TestStepTable(t *testing.T) {
	ended := stepRecord(driver.StateClaimed)
	ended.LeaseEnd = stepNow // from that moment on it does not live
	noted := stepRecord(driver.StateClaimed)
	noted.Note = []byte("note")
	notedEnded := ended
	notedEnded.Note = []byte("note")
	const mine, other = stepToken, stepToken - 1
	for _, c := range []struct {
		name   string
		record driver.Record
		op     driver.Op
		status driver.Status
		state  driver.State
		token  dedup.Token
	}{
		{"claim free", stepRecord(driver.StateFree), stepOp(driver.OpClaim, 0), driver.StatusGranted, driver.StateClaimed, stepNext},
		{"claim claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpClaim, 0), driver.StatusHeld, driver.StateClaimed, mine},
		{"claim ended", ended, stepOp(driver.OpClaim, 0), driver.StatusGranted, driver.StateClaimed, stepNext},
		{"claim released", stepRecord(driver.StateReleased), stepOp(driver.OpClaim, 0), driver.StatusGranted, driver.StateClaimed, stepNext},
		{"claim done", stepRecord(driver.StateDone), stepOp(driver.OpClaim, 0), driver.StatusDone, driver.StateDone, mine},
		{"claim parked", stepRecord(driver.StateParked), stepOp(driver.OpClaim, 0), driver.StatusParked, driver.StateParked, mine},

		{"extend free", stepRecord(driver.StateFree), stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateFree, 0},
		{"extend claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpExtend, mine), driver.StatusOK, driver.StateClaimed, mine},
		{"extend another's", stepRecord(driver.StateClaimed), stepOp(driver.OpExtend, other), driver.StatusLost, driver.StateClaimed, mine},
		{"extend ended", ended, stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateClaimed, mine},
		{"extend released", stepRecord(driver.StateReleased), stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateReleased, mine},
		{"extend done", stepRecord(driver.StateDone), stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateDone, mine},
		{"extend parked", stepRecord(driver.StateParked), stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateParked, mine},

		{"complete free", stepRecord(driver.StateFree), stepOp(driver.OpComplete, other), driver.StatusOK, driver.StateDone, other},
		{"complete claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateDone, mine},
		{"complete another's", stepRecord(driver.StateClaimed), stepOp(driver.OpComplete, other), driver.StatusLost, driver.StateClaimed, mine},
		{"complete ended", ended, stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateDone, mine},
		{"complete released", stepRecord(driver.StateReleased), stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateDone, mine},
		{"complete what another released", stepRecord(driver.StateReleased), stepOp(driver.OpComplete, other), driver.StatusLost, driver.StateReleased, mine},
		{"complete done", stepRecord(driver.StateDone), stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateDone, mine},
		{"complete what another completed", stepRecord(driver.StateDone), stepOp(driver.OpComplete, other), driver.StatusLost, driver.StateDone, mine},
		{"complete parked", stepRecord(driver.StateParked), stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateParked, mine},

		{"park free", stepRecord(driver.StateFree), stepOp(driver.OpPark, other), driver.StatusOK, driver.StateParked, other},
		{"park claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpPark, mine), driver.StatusOK, driver.StateParked, mine},
		{"park another's", stepRecord(driver.StateClaimed), stepOp(driver.OpPark, other), driver.StatusLost, driver.StateClaimed, mine},
		{"park done", stepRecord(driver.StateDone), stepOp(driver.OpPark, mine), driver.StatusOK, driver.StateDone, mine},
		{"park what another completed", stepRecord(driver.StateDone), stepOp(driver.OpPark, other), driver.StatusLost, driver.StateDone, mine},

		{"release free", stepRecord(driver.StateFree), stepOp(driver.OpRelease, mine), driver.StatusLost, driver.StateFree, 0},
		{"release claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpRelease, mine), driver.StatusOK, driver.StateReleased, mine},
		{"release another's", stepRecord(driver.StateClaimed), stepOp(driver.OpRelease, other), driver.StatusLost, driver.StateClaimed, mine},
		{"release ended", ended, stepOp(driver.OpRelease, mine), driver.StatusOK, driver.StateReleased, mine},
		{"release released", stepRecord(driver.StateReleased), stepOp(driver.OpRelease, mine), driver.StatusLost, driver.StateReleased, mine},
		{"release done", stepRecord(driver.StateDone), stepOp(driver.OpRelease, mine), driver.StatusLost, driver.StateDone, mine},
		{"release parked", stepRecord(driver.StateParked), stepOp(driver.OpRelease, mine), driver.StatusLost, driver.StateParked, mine},

		{"unpark free", stepRecord(driver.StateFree), stepOp(driver.OpUnpark, 0), driver.StatusOK, driver.StateFree, 0},
		{"unpark claimed", stepRecord(driver.StateClaimed), stepOp(driver.OpUnpark, 0), driver.StatusHeld, driver.StateClaimed, mine},
		{"unpark ended", ended, stepOp(driver.OpUnpark, 0), driver.StatusHeld, driver.StateClaimed, mine},
		{"unpark released", stepRecord(driver.StateReleased), stepOp(driver.OpUnpark, 0), driver.StatusOK, driver.StateReleased, mine},
		{"unpark done", stepRecord(driver.StateDone), stepOp(driver.OpUnpark, 0), driver.StatusDone, driver.StateDone, mine},
		{"unpark parked", stepRecord(driver.StateParked), stepOp(driver.OpUnpark, 0), driver.StatusOK, driver.StateReleased, stepNext},

		{"claim noted", noted, stepOp(driver.OpClaim, 0), driver.StatusHeld, driver.StateClaimed, mine},
		{"claim noted and ended", notedEnded, stepOp(driver.OpClaim, 0), driver.StatusHeld, driver.StateClaimed, mine},
		{"extend noted and ended", notedEnded, stepOp(driver.OpExtend, mine), driver.StatusLost, driver.StateClaimed, mine},
		{"complete noted and ended", notedEnded, stepOp(driver.OpComplete, mine), driver.StatusOK, driver.StateDone, mine},
		{"release noted and ended", notedEnded, stepOp(driver.OpRelease, mine), driver.StatusOK, driver.StateReleased, mine},
		{"unpark noted and ended", notedEnded, stepOp(driver.OpUnpark, 0), driver.StatusHeld, driver.StateClaimed, mine},

		{"no such operation", stepRecord(driver.StateClaimed), stepOp(0, mine), driver.StatusLost, driver.StateClaimed, mine},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, reply := driver.Step(c.record, c.op, stepNow, stepNext)
			if reply.Status != c.status || got.State != c.state || got.Token != c.token {
				t.Errorf("got %v, state %v, token %d; want %v, state %v, token %d",
					reply.Status, got.State, got.Token, c.status, c.state, c.token)
			}
			if !reflect.DeepEqual(reply.Record, got) {
				t.Errorf("reply: got record %+v, want the one to keep, %+v", reply.Record, got)
			}
			refused := c.status != driver.StatusGranted && c.status != driver.StatusOK
			settled := (c.record.State == driver.StateDone || c.record.State == driver.StateParked) && c.op.Kind != driver.OpUnpark
			if (refused || settled) && !reflect.DeepEqual(got, c.record) {
				t.Errorf("a refused or repeated operation changed the record:\ngot  %+v\nwant %+v", got, c.record)
			}
		})
	}
}

func TestStepExpiredIsFree(t *testing.T) {
	for _, state := range []driver.State{driver.StateClaimed, driver.StateReleased, driver.StateDone, driver.StateParked} {
		for kind := driver.OpClaim; kind <= driver.OpUnpark; kind++ {
			r := stepRecord(state)
			r.Expires, r.LeaseEnd = stepNow, time.Time{}
			op := stepOp(kind, stepToken)
			op.Fingerprint = dedup.Fingerprint{9}
			got, reply := driver.Step(r, op, stepNow, stepNext)
			want, wantReply := driver.Step(driver.Record{}, op, stepNow, stepNext)
			if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(reply, wantReply) {
				t.Errorf("%v of an expired record of state %v: got %+v, want that of a free key, %+v", kind, state, got, want)
			}
			r.Expires = stepNow.Add(1)
			if _, reply := driver.Step(r, op, stepNow, stepNext); kind == driver.OpClaim && reply.Status != driver.StatusConflict {
				t.Errorf("claim of a record of state %v before it expires: got %v, want conflict", state, reply.Status)
			}
		}
	}
}

// TestStepKeepsFingerprint: an operation that settles does not change what the
// claim said of the payload.
func TestStepKeepsFingerprint(t *testing.T) {
	for _, kind := range []driver.OpKind{driver.OpComplete, driver.OpPark} {
		op := stepOp(kind, stepToken)
		op.Fingerprint = dedup.Fingerprint{9}
		got, reply := driver.Step(stepRecord(driver.StateClaimed), op, stepNow, stepNext)
		if reply.Status != driver.StatusOK || got.Fingerprint != stepPrint || got.First != stepPlace {
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
		op := stepOp(driver.OpClaim, 0)
		op.Lease, op.TTL = c.lease, c.ttl
		r, reply := driver.Step(driver.Record{}, op, stepNow, stepNext)
		if reply.Status != driver.StatusGranted || !r.LeaseEnd.Equal(stepNow.Add(c.ends)) || !r.Expires.Equal(stepNow.Add(c.expires)) {
			t.Errorf("lease %v, TTL %v: got %v, lease until %v, expires %v; want %v and %v from now", c.lease, c.ttl, reply.Status, r.LeaseEnd, r.Expires, c.ends, c.expires)
		}
		for _, kind := range []driver.OpKind{driver.OpComplete, driver.OpPark, driver.OpRelease} {
			op := stepOp(kind, stepToken)
			op.TTL = c.ttl
			if r, _ := driver.Step(stepRecord(driver.StateClaimed), op, stepNow, stepNext); !r.Expires.Equal(stepNow.Add(max(c.ttl, 0))) {
				t.Errorf("%v with TTL %v: got expires %v, want %v from now", kind, c.ttl, r.Expires, max(c.ttl, 0))
			}
		}
	}
}

func TestStepNoteTooLong(t *testing.T) {
	for _, kind := range []driver.OpKind{driver.OpClaim, driver.OpExtend} {
		op := stepOp(kind, stepToken)
		op.Note = make([]byte, driver.MaxNote+1)
		for state := driver.StateFree; state <= driver.StateParked; state++ {
			r, reply := driver.Step(stepRecord(state), op, stepNow, stepNext)
			if reply.Err == nil || reply.Status != 0 || !reflect.DeepEqual(r, stepRecord(state)) {
				t.Errorf("%v of state %v: got %+v, record %+v, want an error and no change", kind, state, reply, r)
			}
		}
	}
}

// TestStepIsPure: neither record nor operation is changed, and the same input has
// the same answer.
func TestStepIsPure(t *testing.T) {
	for state := driver.StateFree; state <= driver.StateParked; state++ {
		for kind := driver.OpClaim; kind <= driver.OpUnpark; kind++ {
			r, op := stepRecord(state), stepOp(kind, stepToken)
			first, firstReply := driver.Step(r, op, stepNow, stepNext)
			second, secondReply := driver.Step(r, op, stepNow, stepNext)
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
		if got := driver.NextToken(c.high, c.floor, c.now); got != c.want {
			t.Errorf("%s: NextToken(%d, %d, %v): got %d, want %d", c.name, c.high, c.floor, c.now, got, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		value fmt.Stringer
		want  string
	}{
		{driver.OpClaim, "claim"},
		{driver.OpExtend, "extend"},
		{driver.OpComplete, "complete"},
		{driver.OpPark, "park"},
		{driver.OpRelease, "release"},
		{driver.OpUnpark, "unpark"},
		{driver.OpKind(0), "unknown"},
		{driver.OpKind(200), "unknown"},
		{driver.StatusGranted, "granted"},
		{driver.StatusHeld, "held"},
		{driver.StatusDone, "done"},
		{driver.StatusParked, "parked"},
		{driver.StatusConflict, "conflict"},
		{driver.StatusOK, "ok"},
		{driver.StatusLost, "lost"},
		{driver.StateFree, "free"},
		{driver.StateClaimed, "claimed"},
		{driver.StateReleased, "released"},
		{driver.StateDone, "done"},
		{driver.StateParked, "parked"},
		{driver.State(9), "unknown"},
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
