package dedup

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
)

var opNames = [...]string{"unknown", "claim", "extend", "complete", "park", "release"}

// String returns the name in lower case, such as "claim".
func (k OpKind) String() string { return nameOf(opNames[:], int(k)) }

// Op is one operation on the record of one key. It is for authors of stores. It holds
// durations and no points in time, because only the store's clock counts.
type Op struct {
	Kind  OpKind
	ID    ID
	Token Token // of the claim to extend or to end; unused in OpClaim

	Nonce uint64 // OpClaim: random; a claim with the nonce of the current claim is a retry of it
	Floor Token  // OpClaim: the highest token that this process has seen; the granted token must be higher

	Lease time.Duration // OpClaim, OpExtend: how long the lease lasts from now
	TTL   time.Duration // how long to keep the record: from the lease's end (OpClaim, OpExtend), else from now

	Fingerprint Fingerprint // OpClaim, OpComplete, OpPark: of the payload
	Position    Position    // OpClaim, OpComplete, OpPark: of the message

	Result  []byte // OpComplete: the result. OpPark: the reason.
	Omitted bool   // OpComplete: the result was longer than Options.MaxResult, and Result is nil

	Ambiguous bool // OpRelease: the run may have had its effect
	Uncounted bool // OpRelease: the run does not count as an attempt
}

// size is about what op takes in a store.
func (op *Op) size() int { return 128 + len(op.Result) }

// Status is a store's answer to an [Op]. It is for authors of stores.
type Status uint8

const (
	// StatusGranted answers a claim: it is granted, under Record.Token.
	StatusGranted Status = iota + 1
	// StatusHeld answers a claim: another run holds the key, and its lease has not run out.
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
