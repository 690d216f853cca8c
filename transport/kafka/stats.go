package kafkatransport

import "time"

// Stats are the figures of a [Consumer]. The counts begin when the Consumer was made.
type Stats struct {
	Group      string           // the consumer group
	ClientID   string           // Config.ClientID
	Rebalances int64            // number of assignments received, empty ones included
	Drains     int64            // number of assignments given up, at a rebalance or a shutdown
	Commits    int64            // number of commits that the group accepted
	Late       int64            // number of messages settled after their partition was given up: recorded, not committed
	Skipped    int64            // number of offsets skipped because of Config.OutOfRange or Config.StartOffset
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
	Waiting       bool      // not fetched any more until messages are settled: see Status.Waiting
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
