package dedup

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
	"github.com/oncequeue/oncequeue/dedup/internal/reason"
)

// Errors to match with errors.Is. The errors that this package returns wrap them and say
// more: which message, and why.
var (
	// ErrNoKey means that a message has no idempotency key. A KeyFunc returns it.
	ErrNoKey = errors.New("no idempotency key")
	// ErrBusy means that another run holds the key.
	ErrBusy = driver.ErrBusy
	// ErrConflict means that the key is recorded with another payload.
	ErrConflict = errors.New("the key is recorded with another payload")
	// ErrStale means that the message is older than the store's memory reaches.
	ErrStale = errors.New("the message is older than the store's memory")
	// ErrAmbiguous means that an earlier run may have had its effect without recording it.
	ErrAmbiguous = errors.New("an earlier run may have had its effect")
	// ErrLeaseLost means that the claim ended before the result was recorded: its lease
	// could not be renewed in time, or another run took the key over. It is also the
	// context.Cause of a handler's context that ended for this reason.
	ErrLeaseLost = reason.ErrLeaseLost
	// ErrAttempts means that Options.MaxAttempts runs failed or died.
	ErrAttempts = errors.New("the attempts are used up")
	// ErrStore means that the store did not answer.
	ErrStore = errors.New("the store did not answer")
	// ErrPanic means that a handler, or another function given to New, panicked. errors.As with a *PanicError
	// gives the value and the stack.
	ErrPanic = errors.New("panic")
	// ErrTimeout means that the handler ran for longer than Options.HandlerTimeout. It is
	// also the context.Cause of that handler's context.
	ErrTimeout = errors.New("the handler exceeded HandlerTimeout")
	// ErrHalted means that the message is not settled and an operator must look, as
	// Result.Halt says. Settle and Wrap return it.
	ErrHalted = errors.New("halted")
	// ErrClosed means that the Deduplicator is shut down.
	ErrClosed = reason.ErrClosed
	// ErrOwnKey: a handler called Do, DoBatch, DoEach, DoRound or Settle for the key of
	// its own message, or for one that its batch holds. It matches ErrBusy too.
	ErrOwnKey = fmt.Errorf("%w: that of the handler which makes this call", ErrBusy)
	// ErrInHandler: Shutdown was called inside a handler or hook, and would wait for itself.
	ErrInHandler = errors.New("inside a handler or hook it would wait for itself: call it in a goroutine of its own, or after the handler has returned")
)

// Permanent marks a handler's error: trying again is useless. The message is parked at
// once. Without Options.DeadLetter it halts. Permanent(nil) is nil.
//
// An Options.DeadLetter, and a [driver.Store], can return errors with this mark too: see there.
func Permanent(err error) error { return mark.Permanent(err) }

// RetryAfter marks a handler's error: the message is to be delivered again after d,
// instead of after Options.Backoff. A negative d counts as 0. RetryAfter(nil, d) is nil.
//
// Marks can be combined: RetryAfter(Transient(err), time.Minute). Of two delays the outer
// one counts.
func RetryAfter(err error, d time.Duration) error { return mark.RetryAfter(err, d) }

// Transient marks a handler's error: a dependency is down and the handler had no effect.
// The message runs again, and the attempt does not count towards Options.MaxAttempts.
// Transient(nil) is nil.
func Transient(err error) error { return mark.Transient(err) }

// MaybeDone marks a handler's error: the effect may have happened, as when the reply of
// another system was lost. The next claim of the key is flagged Ambiguous.
// MaybeDone(nil) is nil.
func MaybeDone(err error) error { return mark.MaybeDone(err) }

func panicError(r any) error {
	if err, ok := r.(error); ok {
		r = mark.Finite(err)
	}
	return &PanicError{Value: r, Stack: debug.Stack()}
}

// PanicError is the error that a panic becomes, in any function that a [Deduplicator]
// calls and whose answer it needs: handler, key function, Options.Fingerprint,
// Options.DeadLetter, Options.Backoff, or a method of the store. It matches [ErrPanic]. Get
// it with errors.As.
type PanicError struct {
	Value any    // the value that the function panicked with
	Stack []byte // the stack of its goroutine, as debug.Stack prints it
}

// Error returns "panic: " and the value. It does not contain the stack.
func (e *PanicError) Error() string { return fmt.Sprintf("%v: %v", ErrPanic, e.Value) }

// Unwrap returns [ErrPanic] and, if the value is an error, that error too.
func (e *PanicError) Unwrap() []error {
	if err, ok := e.Value.(error); ok {
		return []error{ErrPanic, err}
	}
	return []error{ErrPanic}
}
