package boltbench

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup/driver"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
)

const (
	expiryTurns = 3
	expiryTTL   = time.Second
	expiryWarm  = 2500 * time.Millisecond // until files expire as fast as they are made
	expiryFor   = 3 * time.Second         // each turn is measured so long, after that
	applyEvery  = 4 * time.Millisecond    // 64,000 messages a second: the store is not at its limit
	expiryRoll  = 250 * time.Millisecond  // several files expire each second
)

// declareExpiry adds the cost of dropping expired files.
func declareExpiry(r *harness.Run) {
	r.Measure("Apply while files expire, and while none do", func(ctx context.Context, m *harness.Measure) error {
		for turn := range expiryTurns {
			expiring, err := latency(ctx, filepath.Join(m.Dir, fmt.Sprint("expiring", turn)), expiryTTL, r)
			if err != nil {
				return err
			}
			lasting, err := latency(ctx, filepath.Join(m.Dir, fmt.Sprint("lasting", turn)), work.TTL, r)
			if err != nil {
				return err
			}
			m.Set("p99 ms of Apply, files expire", expiring)
			m.Set("p99 ms of Apply, none do", lasting)
		}
		return nil
	})
	r.Figure(harness.Figure{
		What: "p99 of Apply while files expire / while none do", Unit: "x", AtMost: true, Bar: 2,
		From: harness.Quotient("p99 ms of Apply, files expire", "p99 ms of Apply, none do"),
	})
	r.Measure("dropping a file", func(ctx context.Context, m *harness.Measure) error { return dropCost(ctx, m, r.Scaled(300_000)) })
	r.Figure(harness.Figure{
		What: "written to drop an expired file, per key in it", Unit: "B", AtMost: true, Bar: 1,
		From: harness.Measured("bytes written to drop a file, per key"),
	})
}

// latency claims and completes at a steady pace, and returns the 99th percentile
// of how long the store takes, in milliseconds.
func latency(ctx context.Context, dir string, ttl time.Duration, r *harness.Run) (_ float64, err error) {
	s, err := boltstore.Open(dir, &boltstore.Options{RollAge: expiryRoll})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	warm := r.Scaled(int(expiryWarm / applyEvery))
	count := r.Scaled(int(expiryFor / applyEvery))
	stream := work.New(3)
	var took []time.Duration
	var completes []driver.Op
	keys := 0
	tick := time.NewTicker(applyEvery)
	defer tick.Stop()
	for i := range warm + count {
		ops := stream.Fresh(work.BatchSize).Ops()
		keys += len(ops)
		for j := range ops {
			ops[j].TTL = ttl
		}
		ops = append(completes, ops...)
		<-tick.C
		start := time.Now()
		replies, err := s.Apply(ctx, ops)
		if i >= warm {
			took = append(took, time.Since(start))
		}
		if err != nil {
			return 0, err
		}
		claims := ops[len(completes):]
		granted := replies[len(completes):]
		next := make([]driver.Op, len(claims))
		for j := range claims {
			if granted[j].Status != driver.StatusGranted {
				return 0, fmt.Errorf("claim: %v %w", granted[j].Status, granted[j].Err)
			}
			next[j] = claims[j]
			next[j].Kind, next[j].Token = driver.OpComplete, granted[j].Record.Token
		}
		completes = next
	}
	st, err := s.Stats(ctx)
	if err != nil {
		return 0, err
	}
	if gone := int(st.Records) < keys; warm > 500 && gone != (ttl == expiryTTL) {
		return 0, fmt.Errorf("%d of %d keys with a TTL of %v are there", st.Records, keys, ttl)
	}
	slices.Sort(took)
	return float64(took[len(took)*99/100].Microseconds()) / 1e3, nil
}

// dropCost has all keys of a store expire at once, and counts the bytes
// written until they are gone.
func dropCost(ctx context.Context, m *harness.Measure, n int) (err error) {
	var ahead atomic.Int64
	s, err := boltstore.Open(filepath.Join(m.Dir, "store"), &boltstore.Options{
		RollAge: time.Minute,
		Now:     func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := work.Fill(ctx, s, work.New(4), n, nil); err != nil {
		return err
	}
	before := harness.DeviceBytesWritten(m.Dir)
	ahead.Store(int64(2 * work.TTL))
	for deadline := time.Now().Add(30 * time.Second); ; {
		st, err := s.Stats(ctx)
		if err != nil {
			return err
		}
		if st.Records == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d keys are there still, long after they expired", st.Records, n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	m.Set("bytes written to drop a file, per key", (harness.DeviceBytesWritten(m.Dir)-before)/float64(n))
	return nil
}
