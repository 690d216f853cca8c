package kafkatransport

import (
	"sync/atomic"
	"time"
)

// Stats are the figures of a Consumer: counts since it was made, and the
// partitions that it holds now.
type Stats struct {
	Group      string
	ClientID   string
	Rebalances int64 // assignments received, empty ones included
	Drains     int64 // assignments given up, at a rebalance or a shutdown
	Commits    int64 // commits that the group took
	Late       int64 // messages settled when their partition was given up already: recorded, not committed
	Skipped    int64 // offsets skipped by OutOfRange: messages that were deleted unread, or not waited for
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
	st := c.counters.stats()
	st.Group, st.ClientID = c.group, c.config.ClientID
	s := c.session.Load()
	if s == nil {
		return st
	}
	g := s.current.Load()
	if g == nil {
		return st
	}
	st.Partitions = make([]PartitionStats, len(g.partitions))
	for i, p := range g.partitions {
		ps := PartitionStats{
			Topic:     p.source.topic,
			Partition: p.source.partition,
			Committed: p.committed.Load(),
			End:       p.end.Load(),
			Halted:    p.halted.Load(),
		}
		ps.Watermark, _ = p.watermark()
		ps.InFlight, ps.InFlightBytes, ps.Oldest = p.load()
		st.Partitions[i] = ps
	}
	return st
}

// counters count for the life of a Consumer.
type counters struct {
	rebalances, drains, commits, late, skipped atomic.Int64
}

func (c *counters) stats() Stats {
	return Stats{
		Rebalances: c.rebalances.Load(),
		Drains:     c.drains.Load(),
		Commits:    c.commits.Load(),
		Late:       c.late.Load(),
		Skipped:    c.skipped.Load(),
	}
}
