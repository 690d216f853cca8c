// Package forget says which records Forget and ForceForget refuse. Every store
// follows it.
package forget

import (
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Refusal returns why a record, which has not expired, is not forgotten at the
// store's time now, or nil. The error matches driver.ErrBusy.
func Refusal(r *driver.Record, now time.Time, force bool) error {
	claimed := r.State == driver.StateClaimed
	switch {
	case claimed && len(r.Note) > 0:
		return refusal("its claim carries a note, by which its holder can learn how its run ended: wait for that")
	case force:
		return nil
	case claimed && r.LeaseEnd.After(now):
		return fmt.Errorf("%w until %v: wait for that, or stop its holder", driver.ErrBusy, r.LeaseEnd)
	case claimed:
		return refusal("its run died or was paused, and may have had its effect: let its message be delivered again, which is then flagged ambiguous; ForceForget has it run again without a flag")
	case r.Ambiguous:
		return refusal("one of its runs may have had its effect: let its message be delivered again, which is then flagged ambiguous; ForceForget has it run again without a flag")
	}
	return nil
}

// refusal is an error that matches driver.ErrBusy, though no run may hold the key.
type refusal string

func (r refusal) Error() string        { return string(r) }
func (r refusal) Is(target error) bool { return target == driver.ErrBusy }
