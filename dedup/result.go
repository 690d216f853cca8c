package dedup

import "time"

// Outcome says what became of one delivery.
type Outcome uint8

const (
	// Processed: the handler ran and its result is recorded.
	Processed Outcome = iota + 1
	// Duplicate: the result was recorded before; Value is that result.
	Duplicate
	// Busy: another run holds the key.
	Busy
	// Failed: the handler failed; the message is to come again.
	Failed
	// Parked: the message is in the dead letters now.
	Parked
	// Conflict: the key is recorded with another payload.
	Conflict
	// Unkeyed: the message has no usable key.
	Unkeyed
	// Stale: no record, and older than the store's memory; OnStale refused it.
	Stale
	// Ambiguous: an earlier run may have had its effect; OnAmbiguous refused it.
	Ambiguous
	// Uncertain: the handler succeeded, and its record was refused or could not
	// be written before the shutdown.
	Uncertain
	// Unavailable: the store did not answer, or the call was given up before the
	// handler ran.
	Unavailable
	// AlreadyParked: the key was parked by an earlier delivery. The handler did not
	// run, and there is no new dead letter. It is settled. To have such a message
	// processed, call Release, and then publish it again.
	AlreadyParked
)

var outcomeNames = [...]string{"unknown", "processed", "duplicate", "busy", "failed", "parked", "conflict", "unkeyed", "stale", "ambiguous", "uncertain", "unavailable", "already_parked"}

// String returns the name in lower case, as metrics and logs show it.
func (o Outcome) String() string { return nameOf(outcomeNames[:], int(o)) }

// Result is what became of one delivery.
type Result struct {
	Outcome    Outcome
	Halt       bool // a policy says: stop here, an operator must look
	settled    bool
	Omitted    bool          // there is no Value: the result was longer than MaxResult
	ID         ID            // zero if the message has no usable key
	Value      []byte        // the recorded result: of this run, or replayed to a duplicate; nil and Omitted if it was too long
	First      Position      // where the key was first seen: tells a redelivery from a re-publish
	RetryAfter time.Duration // not settled: deliver again no sooner than this
	Err        error         // why it was not simply processed; may be set on a settled result
}

// Settled reports whether the delivery may be acknowledged: its result is
// recorded, or its dead letter confirmed, or a policy says so.
func (r Result) Settled() bool { return r.settled }
