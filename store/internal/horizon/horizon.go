// Package horizon computes the time since which a store's memory is complete. All
// stores use it; it does not depend on how they keep records.
package horizon

import "time"

// Horizon is the time since which a store's memory is complete. A record lives for
// the TTL under which it was made. When the TTL is lengthened, older records expire
// too early for the new one. So Since rises: for a change at the time Before, from
// an old TTL of Short, it follows now-Short until it reaches Before.
type Horizon struct {
	Since  time.Time     // the memory is never complete further back than this
	TTL    time.Duration // the longest TTL seen; 0: none yet
	Before time.Time     // when the TTL was last lengthened; older records live for Short
	Short  time.Duration // the longest TTL until Before
}

// New returns the horizon of a store that has forgotten nothing since the time since.
func New(since time.Time) Horizon { return Horizon{Since: since, Before: since} }

// At returns the time since which the memory is complete, as of now. It never falls.
func (h Horizon) At(now time.Time) time.Time {
	gone := now.Add(-h.Short)
	if gone.After(h.Before) {
		gone = h.Before
	}
	if gone.After(h.Since) {
		return gone
	}
	return h.Since
}

// See notes that records are made with this TTL from now on.
func (h *Horizon) See(ttl time.Duration, now time.Time) {
	if ttl <= h.TTL {
		return
	}
	if h.TTL > 0 {
		if !h.Before.After(now.Add(-h.Short)) { // none of them is left
			h.Since, h.Short = h.At(now), h.TTL
		}
		h.Before = now
	}
	h.TTL = ttl
}
