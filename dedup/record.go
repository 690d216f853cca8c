package dedup

import "time"

// State is where a key stands.
type State uint8

const (
	// StateFree is the state of a key without a record: never seen, or forgotten.
	StateFree State = iota
	// StateClaimed: a holder runs the handler, or died doing so.
	StateClaimed
	// StateReleased: the holder gave the claim back without a result.
	StateReleased
	// StateDone: the result is recorded.
	StateDone
	// StateParked: the message went to the dead letters; Result holds the reason.
	StateParked
)

var stateNames = [...]string{"free", "claimed", "released", "done", "parked"}

func (s State) String() string { return nameOf(stateNames[:], int(s)) }

// Token is a fencing token. The tokens of a key only grow.
type Token uint64

// Record is what a store remembers of a key. The zero Record is a free key.
type Record struct {
	State   State
	Token   Token  // of the latest claim
	Nonce   uint64 // of the latest claim
	Attempt int    // runs that failed or died
	// Ambiguous: a run may have had its effect without recording it. Set by a
	// take-over, or by a release or park that says so; kept from then on, and
	// cleared by Done.
	Ambiguous   bool
	LeaseEnd    time.Time // Claimed only
	Expires     time.Time // from then on the record is as good as forgotten
	FirstSeen   time.Time // when the first claim created the record
	First       Position  // of the message that did
	Fingerprint Fingerprint
	Tag         Tag    // of the function that made Fingerprint; 0 without a Fingerprint
	Result      []byte // Done: the result; Parked: the reason
	Omitted     bool   // Done: the result was too long to keep

	// Of a Claimed record only:
	Held Position // of the message whose claim it is; zero if an earlier program recorded the claim
	Note []byte   // a text that the holder left for others to find when it is gone; with one, no claim takes over
}

// Tag tells fingerprint functions apart: see Options.FingerprintName. Fingerprints
// with different tags are not compared.
type Tag uint32

func nameOf(names []string, i int) string {
	if i < len(names) {
		return names[i]
	}
	return "unknown"
}
