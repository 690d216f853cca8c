package driver

import "time"

// State is the state of a key.
type State uint8

const (
	// StateFree is the state of a key without a record: never seen, or forgotten.
	StateFree State = iota
	// StateClaimed means that a holder runs the handler, or died before it could record
	// a result.
	StateClaimed
	// StateReleased means that the holder gave the claim back without a result.
	StateReleased
	// StateDone means that the result is recorded: the key is completed.
	StateDone
	// StateParked means that the message was parked. Record.Result holds the reason.
	StateParked
)

var stateNames = [...]string{"free", "claimed", "released", "done", "parked"}

// String returns the name in lower case, such as "claimed".
func (s State) String() string { return nameOf(stateNames[:], int(s)) }

// Record is the state that a store keeps for a key. The zero Record stands for a key
// without a record. All times are by the store's clock.
type Record struct {
	State   State
	Token   Token  // of the latest claim
	Nonce   uint64 // of the latest claim; 0 in StateDone and StateParked
	Attempt int    // number of runs that failed or died
	// Ambiguous means that a run may have had its effect without recording it. It is set
	// when a lapsed claim is taken over, or by an OpRelease or OpPark that says so. It is
	// kept from then on. StateDone clears it.
	Ambiguous   bool
	LeaseEnd    time.Time   // StateClaimed only: when the lease runs out
	Expires     time.Time   // from then on the key counts as free
	FirstSeen   time.Time   // when the record was created
	First       Position    // of the message that created it
	Fingerprint Fingerprint // of that message's payload
	Tag         Tag         // of the function that made Fingerprint; 0 without a Fingerprint
	Result      []byte      // StateDone: the result. StateParked: the reason.
	Omitted     bool        // StateDone: the result was longer than Options.MaxResult and was not kept

	Held Position // StateClaimed only: of the message whose claim it is; zero if an earlier version recorded it
	Note []byte   // StateClaimed only: see Op.Note
}

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}
