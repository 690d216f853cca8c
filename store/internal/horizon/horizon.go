// Package horizon tells since when a store's memory is complete. Every store needs
// it, and none of it depends on how records are kept.
package horizon

import "time"

// Horizon says since when a store's memory is complete. Records live as long as
// the TTL says that they were made with, so those from before it was lengthened
// are forgotten too early for the new one: at first all that were older than the
// old TTL by then, and later those up to that moment.
type Horizon struct {
	Since  time.Time     // in any case
	TTL    time.Duration // the greatest seen; 0: none yet
	Before time.Time     // records from before then lived for only
	Short  time.Duration // this long
}

// New is the horizon of a store that has forgotten nothing since then.
func New(since time.Time) Horizon { return Horizon{Since: since, Before: since} }

// At returns since when the memory is complete at the time now. It never falls.
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

// See takes in that records are made with this TTL from now on.
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
