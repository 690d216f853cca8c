package driver

import (
	"errors"

	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// ErrBusy means that another run holds the key. A store returns it from
// [Inspector.Forget]. It is the same as dedup.ErrBusy.
var ErrBusy = errors.New("the key is held by another run")

// Permanent marks an error of [Store.Apply], or of a [Reply]: the store will never answer
// again. It must be opened anew, or an operator must look. It is the same mark as
// dedup.Permanent. Permanent(nil) is nil.
func Permanent(err error) error { return mark.Permanent(err) }

// IsPermanent reports whether err, or an error that it wraps, was marked by [Permanent].
// It reports false if a method of err panics.
func IsPermanent(err error) (permanent bool) {
	defer func() { _ = recover() }()
	return mark.Of(err).Permanent
}
