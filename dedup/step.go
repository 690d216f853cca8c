package dedup

import "time"

// Step is the state machine of a key: it applies op to the record r of its key, at the
// store's time now. It returns the record to keep and the reply. A store loads a record,
// calls Step, and saves the record that Step returned if it differs. A store makes no
// decision of its own. Step is for authors of stores.
//
// next is the token that a newly granted claim gets. It must be greater than op.Floor and
// than every token that the store ever issued: see [NextToken].
//
// A record whose Expires is not after now counts as a free key. If the returned record is
// in [StateFree], the store need not keep one.
func Step(r Record, op Op, now time.Time, next Token) (Record, Reply) {
	if r.State != StateFree && !r.Expires.After(now) {
		r = Record{}
	}
	status := StatusLost
	switch op.Kind {
	case OpClaim:
		r, status = claim(r, op, now, next)
	case OpExtend:
		if holds(r, op) && r.LeaseEnd.After(now) {
			r.LeaseEnd = now.Add(op.Lease)
			r.Expires = r.LeaseEnd.Add(op.TTL)
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
			r.LeaseEnd = time.Time{}
			r.Expires = now.Add(op.TTL)
			status = StatusOK
		}
	}
	return r, Reply{Status: status, Record: r}
}

func claim(r Record, op Op, now time.Time, next Token) (Record, Status) {
	if r.State != StateFree && r.Fingerprint != op.Fingerprint && r.Fingerprint != (Fingerprint{}) && op.Fingerprint != (Fingerprint{}) {
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
		// The holder died or was paused: nobody knows how far its run came. That
		// holds for an own nonce too, whose handler may have run meanwhile.
		r.Attempt++
		r.Ambiguous = true
	case StateFree:
		r.FirstSeen, r.First = now, op.Position
	case StateReleased:
	}
	if r.Fingerprint == (Fingerprint{}) {
		r.Fingerprint = op.Fingerprint
	}
	r.State = StateClaimed
	r.Token, r.Nonce = next, op.Nonce
	r.LeaseEnd = now.Add(op.Lease)
	r.Expires = r.LeaseEnd.Add(op.TTL)
	return r, StatusGranted
}

// settle refuses a token that is not the record's: a later claim exists, and
// its word counts. A lapsed lease does not refuse, nor does a missing record:
// the effect has happened, and keeping that is better than forgetting it.
func settle(r Record, op Op, state State, now time.Time) (Record, Status) {
	switch {
	case r.State == StateFree:
		r.FirstSeen, r.First, r.Fingerprint = now, op.Position, op.Fingerprint
	case r.Token != op.Token:
		return r, StatusLost
	case r.State == StateDone || r.State == StateParked:
		return r, StatusOK // a retry: the first answer stands
	}
	r.State = state
	r.Token = op.Token
	r.Nonce = 0
	r.Ambiguous = false
	r.LeaseEnd = time.Time{}
	r.Expires = now.Add(op.TTL)
	r.Result, r.Omitted = op.Result, op.Omitted
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
