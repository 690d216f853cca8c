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
	// OpUnpark turns a parked record into a released one without attempts, so that
	// a replay of its message runs. It needs no claim. The answer is StatusOK for a
	// key that is parked, released or free: each of them can be claimed then. A
	// claimed key is StatusHeld and a completed one StatusDone; nothing changes.
	OpUnpark
)

var opNames = [...]string{"unknown", "claim", "extend", "complete", "park", "release", "unpark"}

func (k OpKind) String() string { return nameOf(opNames[:], int(k)) }

// Op is one operation on the record of one key. Times cross the interface as
// durations only: the store's clock decides.
type Op struct {
	Kind  OpKind
	ID    ID
	Token Token // all but OpClaim and OpUnpark: the claim it speaks for

	Nonce uint64 // OpClaim: tells a retry of this claim from a claim of another
	Floor Token  // OpClaim, OpUnpark: the highest token this process has seen; the new one is higher

	// A negative duration counts as none. Lease and TTL together count as at most
	// the longest time.Duration, 292 years.
	Lease time.Duration // OpClaim, OpExtend
	TTL   time.Duration // how long the record is remembered: after the lease (OpClaim, OpExtend), or from now

	Fingerprint Fingerprint // OpClaim, OpComplete, OpPark
	Tag         Tag         // OpClaim, OpComplete, OpPark: of the function that made Fingerprint
	Position    Position    // OpClaim, OpComplete, OpPark

	// Note is a text that the holder leaves for others to find when it is gone, at most
	// MaxNote bytes; a longer one is refused by Reply.Err. A claim with a note is never
	// taken over. OpClaim: nil for none. OpExtend: it replaces the claim's note; nil
	// leaves that as it is.
	Note []byte

	Result  []byte // OpComplete: the result; OpPark: the reason
	Omitted bool   // OpComplete

	Ambiguous bool // OpRelease, OpPark: the run may have had its effect
	Uncounted bool // OpRelease: the run does not count as an attempt
}

// size is about what op takes in a store.
func (op *Op) size() int { return 128 + len(op.Result) + len(op.Note) }

// MaxNote is the length in bytes that a note may have.
const MaxNote = 256

// Status is a store's answer to an Op.
type Status uint8

const (
	// StatusGranted: the claim is yours, under Record.Token.
	StatusGranted Status = iota + 1
	// StatusHeld: another holds the key, under a living lease or with a note.
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
