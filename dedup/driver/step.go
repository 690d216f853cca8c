package driver

import (
	"fmt"
	"math"
	"time"
)

// Step is the state machine of a key: it applies op to the record r of its key, at the
// store's time now. It returns the record to keep and the reply. A store loads a record,
// calls Step, and saves the record that Step returned if it differs. A store makes no
// decision of its own. Step is for authors of stores.
//
// next is the token that a newly granted claim gets, and a record that is unparked. It must
// be greater than op.Floor and than every token that the store ever issued: see [NextToken].
//
// A record whose Expires is not after now counts as a free key. If the returned record is
// in [StateFree], the store need not keep one.
func Step(r Record, op Op, now time.Time, next Token) (Record, Reply) {
	if r.State != StateFree && !r.Expires.After(now) {
		r = Record{}
	}
	if len(op.Note) > MaxNote {
		return r, Reply{Err: fmt.Errorf("a note of %d bytes: it may have %d", len(op.Note), MaxNote)}
	}
	op.Lease, op.TTL = max(op.Lease, 0), max(op.TTL, 0)
	status := StatusLost
	switch op.Kind {
	case OpClaim:
		r, status = claim(r, op, now, next)
	case OpExtend:
		if holds(r, op) && r.LeaseEnd.After(now) {
			r.lease(op, now)
			if len(op.Note) > 0 {
				r.Note = op.Note
			}
			status = StatusOK
		}
	case OpComplete:
		r, status = settle(r, op, StateDone, now)
	case OpPark:
		r, status = settle(r, op, StateParked, now)
	case OpRelease:
		if holds(r, op) {
			if !op.Uncounted {
				r.Attempt++
			}
			r.State = StateReleased
			r.Ambiguous = r.Ambiguous || op.Ambiguous
			r.unclaim()
			r.Expires = now.Add(op.TTL)
			status = StatusOK
		}
	case OpUnpark:
		r, status = unpark(r, op, now, next)
	}
	return r, Reply{Status: status, Record: r}
}

// lease starts the claim's lease anew.
func (r *Record) lease(op Op, now time.Time) {
	r.LeaseEnd = now.Add(op.Lease)
	r.Expires = r.LeaseEnd.Add(min(op.TTL, math.MaxInt64-op.Lease))
}

// unclaim drops what only a claim has.
func (r *Record) unclaim() { r.LeaseEnd, r.Held, r.Note = time.Time{}, Position{}, nil }

// identify takes the fingerprint of op over.
func (r *Record) identify(op Op) {
	if op.Fingerprint != (Fingerprint{}) {
		r.Fingerprint, r.Tag = op.Fingerprint, op.Tag
	}
}

func claim(r Record, op Op, now time.Time, next Token) (Record, Status) {
	compared := r.Fingerprint != (Fingerprint{}) && op.Fingerprint != (Fingerprint{}) && r.Tag == op.Tag
	if r.State != StateFree && compared && r.Fingerprint != op.Fingerprint {
		return r, StatusConflict
	}
	switch r.State {
	case StateDone:
		return r, StatusDone
	case StateParked:
		return r, StatusParked
	case StateClaimed:
		if r.LeaseEnd.After(now) {
			if r.Nonce == op.Nonce {
				return r, StatusGranted // a retry whose first reply was lost
			}
			return r, StatusHeld
		}
		if len(r.Note) > 0 { // the note says how to learn what became of the run
			return r, StatusHeld
		}
		// The holder died or was paused: nobody knows how far its run came. That
		// holds for an own nonce too, whose handler may have run meanwhile.
		r.Attempt++
		r.Ambiguous = true
	case StateFree:
		r.FirstSeen, r.First = now, op.Position
	case StateReleased:
	}
	if !compared {
		r.identify(op)
	}
	r.State = StateClaimed
	r.Token, r.Nonce = next, op.Nonce
	r.Held, r.Note = op.Position, nil
	if len(op.Note) > 0 {
		r.Note = op.Note
	}
	r.lease(op, now)
	return r, StatusGranted
}

// settle refuses a token that is not the record's: a later claim exists, and
// its word counts. A lapsed lease does not refuse, nor does a missing record:
// the effect has happened, and keeping that is better than forgetting it.
func settle(r Record, op Op, state State, now time.Time) (Record, Status) {
	switch {
	case r.State == StateFree:
		r.FirstSeen, r.First = now, op.Position
		r.identify(op)
	case r.Token != op.Token:
		return r, StatusLost
	case r.State == StateDone || r.State == StateParked:
		return r, StatusOK // a retry: the first answer stands
	}
	r.State = state
	r.Token = op.Token
	r.Nonce = 0
	r.Ambiguous = state == StateParked && (r.Ambiguous || op.Ambiguous)
	r.unclaim()
	r.Expires = now.Add(op.TTL)
	r.Result, r.Omitted = op.Result, op.Omitted
	return r, StatusOK
}

// unpark has the record go on under a token of its own, so that a late word of the
// run that parked it counts for nothing.
func unpark(r Record, op Op, now time.Time, next Token) (Record, Status) {
	switch r.State {
	case StateClaimed:
		return r, StatusHeld
	case StateDone:
		return r, StatusDone
	case StateParked:
		r.State = StateReleased
		r.Token = next
		r.Attempt = 0
		r.Expires = now.Add(op.TTL)
		r.Result, r.Omitted = nil, false
	case StateFree, StateReleased:
	}
	return r, StatusOK
}

func holds(r Record, op Op) bool { return r.State == StateClaimed && r.Token == op.Token }

// NextToken returns the token for a new claim. It is greater than high, the highest token
// that the store has issued or seen, and greater than floor, the Op.Floor of the claim. It
// is at least the number of microseconds from 1970 to now, so that tokens keep growing even
// if the store has forgotten high. It is for authors of stores.
func NextToken(high, floor Token, now time.Time) Token {
	return max(high+1, floor+1, Token(max(now.UnixMicro(), 0)))
}
