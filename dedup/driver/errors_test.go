package driver_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// A store and a handler mark errors in the same way, and each knows the other's mark.
func TestIsPermanent(t *testing.T) {
	base := errors.New("broken pipe")
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nil":                 {nil, false},
		"nil, marked":         {driver.Permanent(nil), false},
		"a plain error":       {base, false},
		"of a store":          {driver.Permanent(base), true},
		"of a handler":        {dedup.Permanent(base), true},
		"wrapped":             {fmt.Errorf("order 7: %w", driver.Permanent(base)), true},
		"with another mark":   {dedup.MaybeDone(dedup.Permanent(base)), true},
		"another mark":        {dedup.Transient(base), false},
		"its text alone":      {errors.New(driver.Permanent(base).Error()), false},
		"a method that fails": {panics{}, false},
	} {
		if got := driver.IsPermanent(c.err); got != c.want {
			t.Errorf("%s: got %t, want %t", name, got, c.want)
		}
	}
}

type panics struct{ error }

func (panics) Unwrap() error { panic("odd") }
