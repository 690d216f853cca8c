package kafkatransport

import "time"

// Stats are the figures of a Consumer: counts since it was made, and the
// partitions that it holds now.
type Stats struct {
	Group      string
	ClientID   string
	Rebalances int64 // assignments received, empty ones included
	Drains     int64 // assignments given up, at a rebalance or a shutdown
	Commits    int64 // commits that the group took
	Late       int64 // messages settled when their partition was given up already: recorded, not committed
	Skipped    int64 // offsets skipped by OutOfRange or by StartOffset: messages that were deleted unread, or not waited for
	Partitions []PartitionStats
}

// PartitionStats are the figures of one partition.
type PartitionStats struct {
	Topic         string
	Partition     int32
	Watermark     int64     // offset up to which, itself excluded, all is settled; negative: not known yet
	Committed     int64     // last committed offset; -1 if none
	End           int64     // of the log, as the last fetch told; -1: not known yet
	InFlight      int       // messages fetched and not settled
	InFlightBytes int       // of their keys, values and headers
	Oldest        time.Time // when the oldest of them was fetched; zero if there is none
	Halted        bool
}

// Lag returns how many offsets are not settled yet; -1 if that is not known.
func (p PartitionStats) Lag() int64 {
	if p.Watermark < 0 || p.End < 0 {
		return -1
	}
	return max(p.End-p.Watermark, 0)
}

// Stats returns the figures of now. It does not wait, and asks no broker.
func (c *Consumer) Stats() Stats {
	st := Stats{
		Group:      c.group,
		ClientID:   c.config.ClientID,
		Rebalances: c.counts.Rebalances.Load(),
		Drains:     c.counts.Drains.Load(),
		Commits:    c.counts.Commits.Load(),
		Late:       c.counts.Late.Load(),
		Skipped:    c.counts.Skipped.Load(),
	}
	s := c.session.Load()
	if s == nil {
		return st
	}
	g := s.current.Load()
	if g == nil {
		return st
	}
	st.Partitions = make([]PartitionStats, len(g.fetchers))
	for i, f := range g.fetchers {
		st.Partitions[i] = PartitionStats(f.Stats())
	}
	return st
}
