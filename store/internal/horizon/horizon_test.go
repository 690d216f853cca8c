package horizon

import (
	"testing"
	"time"
)

// However the TTL changes, a record that was forgotten is never vouched for,
// and the horizon never falls.
func TestHorizon(t *testing.T) {
	day := 24 * time.Hour
	created := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	h := New(created)
	for _, step := range []struct {
		after time.Duration // of creation
		ttl   time.Duration // seen then; 0: none
		want  time.Duration // horizon after creation
	}{
		{0, day, 0},
		{10 * day, 0, 0},
		{10 * day, day, 0},
		{10 * day, time.Hour, 0},
		{10 * day, 2 * day, 9 * day}, // records older than the old TTL are gone
		{10*day + 12*time.Hour, 0, 9*day + 12*time.Hour},
		{11 * day, 0, 10 * day}, // and later all from before the change
		{20 * day, 0, 10 * day},
		{20 * day, 3 * day, 18 * day},
		{30 * day, 0, 20 * day},
	} {
		now := created.Add(step.after)
		if step.ttl > 0 {
			h.See(step.ttl, now)
		}
		if got := h.At(now).Sub(created); got != step.want {
			t.Errorf("at %v, TTL %v: got %v, want %v", step.after, step.ttl, got, step.want)
		}
	}
}
