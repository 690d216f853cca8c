package boltstore

import (
	"math"
	"time"
)

// A file is dropped when all but this part of its records have expired, or were
// replaced; the others are written again.
const carried = 32

// expiries counts the records of a file that were not replaced by when they
// expire: in steps of time from when the file was created.
type expiries struct {
	base   time.Time
	step   time.Duration
	counts map[uint32]int
	total  int // records, including those that were replaced
}

// stepOf returns the step in which t is.
func (x *expiries) stepOf(t time.Time) uint32 {
	n := t.Sub(x.base) / x.step
	return uint32(min(max(n, 0), math.MaxUint32))
}

func (x *expiries) add(step uint32) {
	x.counts[step]++
	x.total++
}

func (x *expiries) replaced(step uint32) {
	if x.counts[step]--; x.counts[step] == 0 {
		delete(x.counts, step)
	}
}

// few reports whether so few of the records live that it is time to write them
// again and drop the file.
func (x *expiries) few(now time.Time) bool {
	n, current := 0, x.stepOf(now)
	for step, count := range x.counts {
		if step >= current {
			n += count
		}
	}
	return n <= x.total/carried
}
