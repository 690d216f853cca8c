package boltstore

import "time"

// memory says since when a store's memory is complete. Records live as long as
// the TTL says that they were made with, so those from before it was lengthened
// are forgotten too early for the new one: at first all that were older than the
// old TTL by then, and later those up to that moment.
type memory struct {
	since  time.Time     // in any case
	ttl    time.Duration // the greatest seen; 0: none yet
	before time.Time     // records from before then lived for only
	short  time.Duration // this long
}

// newMemory is that of a store that has forgotten nothing since then.
func newMemory(since time.Time) memory { return memory{since: since, before: since} }

// at returns since when the memory is complete at the time now. It never falls.
func (m memory) at(now time.Time) time.Time {
	gone := now.Add(-m.short)
	if gone.After(m.before) {
		gone = m.before
	}
	if gone.After(m.since) {
		return gone
	}
	return m.since
}

// see takes in that records are made with this TTL from now on.
func (m *memory) see(ttl time.Duration, now time.Time) {
	if ttl <= m.ttl {
		return
	}
	if m.ttl > 0 {
		if !m.before.After(now.Add(-m.short)) { // none of them is left
			m.since, m.short = m.at(now), m.ttl
		}
		m.before = now
	}
	m.ttl = ttl
}
