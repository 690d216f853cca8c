package boltstore

import (
	"maps"
	"slices"
	"time"
)

// A file is removed when all but this part of its records have expired; the
// others are written again.
const carried = 32

// expiries counts records by when they expire, rounded up to steps.
type expiries struct {
	counts map[int64]int // step -> records
	total  int
	step   time.Duration
}

func (x *expiries) add(t time.Time, step time.Duration) {
	if x.counts == nil {
		x.counts, x.step = make(map[int64]int), step
	}
	x.counts[t.UnixNano()/int64(step)+1]++
	x.total++
}

// due returns when all but a few of the records will have expired.
func (x *expiries) due() time.Time {
	few, left := x.total/carried, x.total
	for _, step := range slices.Sorted(maps.Keys(x.counts)) {
		if left -= x.counts[step]; left <= few {
			return time.Unix(0, step*int64(x.step)).UTC()
		}
	}
	return time.Time{} // no records
}
