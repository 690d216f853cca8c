package dedup

import "time"

// Outcome says how the processing of one delivery ended. An Outcome alone does not say
// whether to acknowledge: [Result.Settled] does.
type Outcome uint8

const (
	// Processed means that the handler ran and its result is recorded. Settled.
	Processed Outcome = iota + 1
	// Duplicate means that the result was recorded earlier. Result.Value is that result,
	// and the handler did not run. Settled.
	Duplicate
	// Busy means that another run holds the key. Not settled.
	Busy
	// Failed means that the handler returned an error, or that the dead letter could not
	// be confirmed. The message has to come again. Not settled.
	Failed
	// Parked means that the message was parked by this delivery. Settled.
	Parked
	// Conflict means that the key is recorded with another payload. Options.OnConflict
	// decides: settled if it parks or skips, not if it halts.
	Conflict
	// Unkeyed means that the message has no usable key. Options.OnUnkeyed decides: settled
	// if the message is parked, or processed without an error; not if it halts.
	Unkeyed
	// Stale means that the message is stale and that Options.OnStale did not let it run:
	// settled if it parks, not if it halts.
	Stale
	// Ambiguous means that an earlier run may have had its effect and that
	// Options.OnAmbiguous did not let the message run: settled if it parks, not if it halts.
	Ambiguous
	// Uncertain means that the handler or the dead letter succeeded, but the store refused
	// to record it because another run took the key over, or the record could not be written
	// before Shutdown ended or the store failed for good. Not settled.
	Uncertain
	// Unavailable means that the store did not answer, or that the call ended before the
	// handler was started. Not settled.
	Unavailable
	// AlreadyParked means that the key was parked by an earlier delivery. The handler did
	// not run, and there is no new dead letter. To have the message processed, call
	// Deduplicator.Release, and then publish it again. Settled.
	AlreadyParked
)

var outcomeNames = [...]string{"unknown", "processed", "duplicate", "busy", "failed", "parked", "conflict", "unkeyed", "stale", "ambiguous", "uncertain", "unavailable", "already_parked"}

// String returns the name in lower case, such as "processed". Metrics and logs use it.
func (o Outcome) String() string { return nameOf(outcomeNames[:], int(o)) }

// Result says how the processing of one delivery ended, and what to do with the delivery:
// acknowledge it if [Result.Settled] reports true; stop if Halt is set; otherwise deliver
// it again after RetryAfter.
type Result struct {
	Outcome    Outcome
	Halt       bool // not settled: stop here, because an operator must look
	settled    bool
	Omitted    bool          // the result was longer than Options.MaxResult, so Value is nil
	ID         ID            // of the key; zero if the message has no usable key
	Value      []byte        // the handler's result: of this run, or of the earlier run that made this a duplicate
	First      Position      // of the first message with this key; equal to the message's own Position in a redelivery
	RetryAfter time.Duration // not settled: deliver the message again no sooner than this
	Err        error         // why the message was not simply processed; a settled Result may have one
}

// Settled reports whether the delivery may be acknowledged: the result is recorded, the
// dead letter is confirmed, or a policy says that no more is to be done.
func (r Result) Settled() bool { return r.settled }
