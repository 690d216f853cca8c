package dedup

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Sentinel errors. Match them with errors.Is: what is returned says more.
var (
	// ErrNoKey: the message has no idempotency key.
	ErrNoKey = errors.New("no idempotency key")
	// ErrBusy: another holds the key.
	ErrBusy = errors.New("the key is held by another run")
	// ErrConflict: the key is recorded with another payload.
	ErrConflict = errors.New("the key is recorded with another payload")
	// ErrStale: the message is older than what the store vouches for.
	ErrStale = errors.New("the message is older than the store's memory")
	// ErrAmbiguous: an earlier run may have had its effect without recording it.
	ErrAmbiguous = errors.New("an earlier run may have had its effect")
	// ErrLeaseLost: the claim was lost while the handler ran. Also the
	// context.Cause of that handler's context.
	ErrLeaseLost = errors.New("the lease was lost")
	// ErrAttempts: the attempts of the message are used up.
	ErrAttempts = errors.New("the attempts are used up")
	// ErrStore: the store did not answer.
	ErrStore = errors.New("the store did not answer")
	// ErrPanic: the handler panicked.
	ErrPanic = errors.New("panic")
	// ErrTimeout: HandlerTimeout passed. Also the context.Cause of that handler's context.
	ErrTimeout = errors.New("the handler exceeded HandlerTimeout")
	// ErrHalted: a policy said to stop here; an operator must look.
	ErrHalted = errors.New("halted")
	// ErrClosed: the Deduplicator is shut down.
	ErrClosed = errors.New("the deduplicator is shut down")
	// ErrOwnKey: a handler called Do, DoBatch, DoEach or Settle for the key of its own
	// message, or for one that its batch holds. It matches ErrBusy too.
	ErrOwnKey = fmt.Errorf("%w: that of the handler which makes this call", ErrBusy)
	// ErrInHandler: Shutdown was called inside a handler or hook, and would wait for itself.
	ErrInHandler = errors.New("inside a handler or hook it would wait for itself: call it in a goroutine of its own, or after the handler has returned")
)

// steer carries what a handler says beyond "it failed".
type steer struct {
	err       error
	permanent bool
	transient bool
	maybeDone bool
	after     time.Duration
	hasAfter  bool
}

func (s *steer) Error() string { return s.err.Error() }
func (s *steer) Unwrap() error { return s.err }

// Permanent says that trying again is useless: the message is parked now.
// Without a DeadLetter it halts. nil stays nil.
func Permanent(err error) error { return steered(err, steer{permanent: true}) }

// RetryAfter says when to deliver the message again. nil stays nil.
func RetryAfter(err error, d time.Duration) error {
	return steered(err, steer{after: max(d, 0), hasAfter: true})
}

// Transient says that a dependency is down and nothing happened: the message
// is tried again, and the attempt does not count. nil stays nil.
func Transient(err error) error { return steered(err, steer{transient: true}) }

// MaybeDone says that the effect may have happened, as after a lost reply: the
// next claim of the key is Ambiguous. nil stays nil.
func MaybeDone(err error) error { return steered(err, steer{maybeDone: true}) }

// IsPermanent reports whether err was marked by Permanent. An error whose methods
// panic was not.
func IsPermanent(err error) (permanent bool) {
	defer func() { _ = recover() }()
	return steering(err).permanent
}

func steered(err error, s steer) error {
	if err == nil {
		return nil
	}
	s.err = err
	return &s
}

// steering merges what all the marks in err's tree say, so that marks nest:
// RetryAfter(Transient(err), time.Minute). Of two delays the outer one counts.
func steering(err error) (s steer) {
	s.walk(err, new(int))
	return s
}

// maxTree is how many errors a tree may have. One with more never ends: some error
// in it unwraps to itself.
const maxTree = 10_000

// walk merges the marks in err's tree. It reports whether the tree ends.
func (s *steer) walk(err error, seen *int) bool {
	if *seen++; *seen > maxTree {
		return false
	}
	if x, ok := err.(*steer); ok { //nolint:errorlint // this is the walk of the tree
		s.merge(*x)
	}
	switch x := err.(type) { //nolint:errorlint // likewise
	case interface{ Unwrap() error }:
		return s.walk(x.Unwrap(), seen)
	case interface{ Unwrap() []error }:
		for _, e := range x.Unwrap() {
			if !s.walk(e, seen) {
				return false
			}
		}
	}
	return true
}

// finite returns err, whose tree others walk, or only its text if the tree never ends.
func finite(err error) (finite error) {
	if err == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil || finite == nil {
			finite = fmt.Errorf("%v (an error of type %T, which cannot be unwrapped to its end)", err, err)
		}
	}()
	if s := (steer{}); s.walk(err, new(int)) {
		return err
	}
	return nil
}

func (s *steer) merge(inner steer) {
	s.permanent = s.permanent || inner.permanent
	s.transient = s.transient || inner.transient
	s.maybeDone = s.maybeDone || inner.maybeDone
	if !s.hasAfter {
		s.after, s.hasAfter = inner.after, inner.hasAfter
	}
}

func panicError(r any) error {
	if err, ok := r.(error); ok {
		r = finite(err)
	}
	return &PanicError{Value: r, Stack: debug.Stack()}
}

// PanicError is what a panic of a handler or key function becomes. It matches
// ErrPanic.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("%v: %v", ErrPanic, e.Value) }

// Unwrap returns ErrPanic and, if the value was an error, that error.
func (e *PanicError) Unwrap() []error {
	if err, ok := e.Value.(error); ok {
		return []error{ErrPanic, err}
	}
	return []error{ErrPanic}
}
