package driver

import "time"

// OpKind is the kind of an [Op]. It is for authors of stores.
type OpKind uint8

const (
	// OpClaim asks for the right to run the handler. Answers: StatusGranted, StatusHeld,
	// StatusDone, StatusParked or StatusConflict.
	OpClaim OpKind = iota + 1
	// OpExtend makes a lease that has not run out end later: Lease from now. Like all the
	// following operations it is answered by StatusOK or StatusLost.
	OpExtend
	// OpComplete records the result.
	OpComplete
	// OpPark records that the message was parked, and why.
	OpPark
	// OpRelease gives a claim back without a result, so that the message runs again.
	OpRelease
	// OpUnpark turns a parked record into a released one without attempts, so that
	// a replay of its message runs. It needs no claim. The answer is StatusOK for a
	// key that is parked, released or free: each of them can be claimed then. A
	// claimed key is StatusHeld and a completed one StatusDone; nothing changes.
	OpUnpark
)

var opNames = [...]string{"unknown", "claim", "extend", "complete", "park", "release", "unpark"}

// String returns the name in lower case, such as "claim".
func (k OpKind) String() string { return nameOf(opNames[:], int(k)) }

// Op is one operation on the record of one key. It is for authors of stores. It holds
// durations and no points in time, because only the store's clock counts.
type Op struct {
	Kind  OpKind
	ID    ID
	Token Token // of the claim to extend or to end; unused in OpClaim and OpUnpark

	Nonce uint64 // OpClaim: random; a claim with the nonce of the current claim is a retry of it
	Floor Token  // OpClaim, OpUnpark: the highest token that this process has seen; the new token must be higher

	// A negative duration counts as none. Lease and TTL together count as at most the
	// longest time.Duration, 292 years.
	Lease time.Duration // OpClaim, OpExtend: how long the lease lasts from now
	TTL   time.Duration // how long to keep the record: from the lease's end (OpClaim, OpExtend), else from now

	Fingerprint Fingerprint // OpClaim, OpComplete, OpPark: of the payload
	Tag         Tag         // OpClaim, OpComplete, OpPark: of the function that made Fingerprint
	Position    Position    // OpClaim, OpComplete, OpPark: of the message

	// Note is a text that the holder leaves for others to find when it is gone. A claim with
	// a note is never taken over. A note of more than MaxNote bytes is refused by Reply.Err.
	// OpClaim: nil for none. OpExtend: it replaces the claim's note; nil keeps that.
	Note []byte

	Result  []byte // OpComplete: the result. OpPark: the reason.
	Omitted bool   // OpComplete: the result was longer than Options.MaxResult, and Result is nil

	Ambiguous bool // OpRelease, OpPark: the run may have had its effect
	Uncounted bool // OpRelease: the run does not count as an attempt
}

// MaxNote is the length in bytes that a note may have.
const MaxNote = 256

// Status is a store's answer to an [Op]. It is for authors of stores.
type Status uint8

const (
	// StatusGranted answers a claim: it is granted, under Record.Token.
	StatusGranted Status = iota + 1
	// StatusHeld answers a claim: another run holds the key, and its lease has not run out
	// or its claim has a note. It answers an unpark of a claimed key, too.
	StatusHeld
	// StatusDone answers a claim: the result is recorded already.
	StatusDone
	// StatusParked answers a claim: the message was parked already.
	StatusParked
	// StatusConflict answers a claim: the record has another fingerprint.
	StatusConflict
	// StatusOK answers the other operations: the operation took effect, now or earlier.
	StatusOK
	// StatusLost answers the other operations: Op.Token does not hold the key any more, and
	// nothing changed.
	StatusLost
)

var statusNames = [...]string{"unknown", "granted", "held", "done", "parked", "conflict", "ok", "lost"}

// String returns the name in lower case, such as "granted".
func (s Status) String() string { return nameOf(statusNames[:], int(s)) }

// Reply is a store's answer to one [Op]. It is for authors of stores.
type Reply struct {
	Status Status
	Record Record // as it is after the Op
	Err    error  // if not nil, nobody knows whether the Op took effect, and the other fields are zero
}
