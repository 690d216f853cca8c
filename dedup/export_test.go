package dedup

// ShortenIDs replaces the function that shortens an ID to the half by which a
// Deduplicator knows the keys it works on.
func (d *Deduplicator) ShortenIDs(half func(ID) uint64) { d.flights.half = half }
