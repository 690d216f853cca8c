// Package mark has the marks that handlers and stores put on their errors.
package mark

import (
	"fmt"
	"time"
)

// Marks carry what an error says beyond "it failed". They are an error too, around another.
type Marks struct {
	err       error
	Permanent bool
	Transient bool
	MaybeDone bool
	After     time.Duration
	HasAfter  bool
}

func (s *Marks) Error() string { return s.err.Error() }
func (s *Marks) Unwrap() error { return s.err }

// Permanent marks err: trying again is useless.
func Permanent(err error) error { return marked(err, Marks{Permanent: true}) }

// RetryAfter marks err: try again after d. A negative d counts as 0.
func RetryAfter(err error, d time.Duration) error {
	return marked(err, Marks{After: max(d, 0), HasAfter: true})
}

// Transient marks err: there was no effect.
func Transient(err error) error { return marked(err, Marks{Transient: true}) }

// MaybeDone marks err: the effect may have happened.
func MaybeDone(err error) error { return marked(err, Marks{MaybeDone: true}) }

func marked(err error, s Marks) error {
	if err == nil {
		return nil
	}
	s.err = err
	return &s
}

// Of merges what all the marks in err's tree say, so that marks nest:
// RetryAfter(Transient(err), time.Minute). Of two delays the outer one counts.
func Of(err error) (s Marks) {
	s.walk(err, new(int))
	return s
}

// maxTree is how many errors a tree may have. One with more never ends: some error
// in it unwraps to itself.
const maxTree = 10_000

// walk merges the marks in err's tree. It reports whether the tree ends.
func (s *Marks) walk(err error, seen *int) bool {
	if *seen++; *seen > maxTree {
		return false
	}
	if x, ok := err.(*Marks); ok { //nolint:errorlint // this is the walk of the tree
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

// Finite returns err, whose tree others walk, or only its text if the tree never ends.
func Finite(err error) (finite error) {
	if err == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil || finite == nil {
			//nolint:errorlint // wrapped, the tree would be walked again
			finite = fmt.Errorf("%v (an error of type %T, which cannot be unwrapped to its end)", err, err)
		}
	}()
	if s := (Marks{}); s.walk(err, new(int)) {
		return err
	}
	return nil
}

func (s *Marks) merge(inner Marks) {
	s.Permanent = s.Permanent || inner.Permanent
	s.Transient = s.Transient || inner.Transient
	s.MaybeDone = s.MaybeDone || inner.MaybeDone
	if !s.HasAfter {
		s.After, s.HasAfter = inner.After, inner.HasAfter
	}
}
