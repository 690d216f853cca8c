package kafkatransport

import (
	"sync/atomic"
	"time"
)

// Stats are the figures of a [Consumer]. The counts begin when the Consumer was made.
type Stats struct {
	Group      string           // the consumer group
	ClientID   string           // Config.ClientID
	Rebalances int64            // number of assignments received, empty ones included
	Drains     int64            // number of assignments given up, at a rebalance or a shutdown
	Commits    int64            // number of commits that the group accepted
	Late       int64            // number of messages settled after their partition was given up: recorded, not committed
	Skipped    int64            // number of offsets skipped because of Config.OutOfRange
	Partitions []PartitionStats // the partitions that this member holds now
}

// PartitionStats are the figures of one partition that a [Consumer] holds.
type PartitionStats struct {
	Topic         string
	Partition     int32
	Watermark     int64     // all messages before this offset are settled; negative if not known yet
	Committed     int64     // last committed offset; -1 if there is none
	End           int64     // end of the log, as the last fetch said; -1 if not known yet
	InFlight      int       // number of messages that were fetched and are not settled
	InFlightBytes int       // bytes of their keys, values and headers
	Oldest        time.Time // when the oldest of them was fetched; zero if there is none
	Halted        bool      // an operator must look
}

// Lag returns the number of offsets from Watermark to End, or -1 if one of them is not known.
func (p PartitionStats) Lag() int64 {
	if p.Watermark < 0 || p.End < 0 {
		return -1
	}
	return max(p.End-p.Watermark, 0)
}

// Stats returns the current figures. It does not wait, and asks no broker.
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
