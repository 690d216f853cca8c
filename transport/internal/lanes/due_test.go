package lanes

import (
	"math"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// The longest delay there is does not overflow into an immediate retry.
func TestDue(t *testing.T) {
	for _, after := range []time.Duration{math.MinInt64, -1, 0, minRetry, time.Hour, math.MaxInt64} {
		r := dedup.Result{RetryAfter: after}
		now := time.Now()
		least := now.Add(max(after, minRetry))
		if got := due(r); got.Before(least) || got.After(least.Add(time.Minute)) {
			t.Errorf("due after %v: got %v, want %v", after, got, least)
		}
		if got := dueOnGrid(r); got.Before(least.Round(0)) || got.After(least.Add(time.Minute)) {
			t.Errorf("due after %v: got %v on the grid, want no sooner than %v", after, got, least)
		}
	}
}
