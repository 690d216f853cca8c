package dedup

import "time"

// OpKind says what an Op asks of a store.
type OpKind uint8

const (
	// OpClaim asks for the right to run the handler.
	OpClaim OpKind = iota + 1
	// OpExtend moves the end of a living lease.
	OpExtend
	// OpComplete records the result.
	OpComplete
	// OpPark records that the message is in the dead letters.
	OpPark
	// OpRelease gives a claim back without a result.
	OpRelease
)

var opNames = [...]string{"unknown", "claim", "extend", "complete", "park", "release"}

func (k OpKind) String() string { return nameOf(opNames[:], int(k)) }

// Op is one operation on the record of one key. Times cross the interface as
// durations only: the store's clock decides.
type Op struct {
	Kind  OpKind
	ID    ID
	Token Token // all but OpClaim: the claim it speaks for

	Nonce uint64 // OpClaim: tells a retry of this claim from a claim of another
	Floor Token  // OpClaim: the highest token this process has seen; the new one is higher

	Lease time.Duration // OpClaim, OpExtend
	TTL   time.Duration // how long the record is remembered: after the lease (OpClaim, OpExtend), or from now

	Fingerprint Fingerprint // OpClaim, OpComplete, OpPark
	Position    Position    // OpClaim, OpComplete, OpPark

	Result  []byte // OpComplete: the result; OpPark: the reason
	Omitted bool   // OpComplete

	Ambiguous bool // OpRelease: the run may have had its effect
	Uncounted bool // OpRelease: the run does not count as an attempt
}

// size is about what op takes in a store.
func (op *Op) size() int { return 128 + len(op.Result) }

// Status is a store's answer to an Op.
type Status uint8

const (
	// StatusGranted: the claim is yours, under Record.Token.
	StatusGranted Status = iota + 1
	// StatusHeld: another holds the key under a living lease.
	StatusHeld
	// StatusDone: the result is recorded.
	StatusDone
	// StatusParked: the message is in the dead letters.
	StatusParked
	// StatusConflict: the key is recorded with another fingerprint.
	StatusConflict
	// StatusOK: an operation other than a claim took effect, now or earlier.
	StatusOK
	// StatusLost: the token does not hold the key any more; nothing changed.
	StatusLost
)

var statusNames = [...]string{"unknown", "granted", "held", "done", "parked", "conflict", "ok", "lost"}

func (s Status) String() string { return nameOf(statusNames[:], int(s)) }

// Reply answers one Op.
type Reply struct {
	Status Status
	Record Record // after the op
	Err    error  // not nil: the state of this op is unknown, and the rest of the Reply is zero
}
