package redisbench

import (
	"context"
	"errors"
	"fmt"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// declareMemory measures the server's memory per remembered key, its share
// of the tables included. Those double at each power of two: a key takes the most
// right after that, and the least right before.
func declareMemory(r *harness.Run) {
	table := 1 << 10
	for table < 5*r.Messages {
		table *= 2
	}
	sizes := []struct {
		name, metric string
		keys         int
		bar, goal    float64
	}{
		{"just after the tables doubled", "memory of few", table * 17 / 32, 0, 0},
		{"tables three quarters full", "memory", table * 3 / 4, 230, 180},
	}
	r.Measure("memory per remembered key", func(ctx context.Context, m *harness.Measure) (err error) {
		s, err := start(ctx, m.Dir, false)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.stop()) }()
		d, end, err := s.deduplicator(ctx)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, end()) }()
		const used = "used_memory"
		empty, err := s.info(ctx, used)
		if err != nil {
			return err
		}
		stream, keys := work.New(1), 0
		for _, size := range sizes {
			b := stream.Fresh(size.keys - keys)
			if err := errors.Join(b.DoBatch(ctx, d), b.Check()); err != nil {
				return err
			}
			keys = size.keys
			if _, err := s.settledTable(ctx); err != nil {
				return err
			}
			full, err := s.info(ctx, used)
			if err != nil {
				return err
			}
			m.Set(size.metric, (full-empty)/float64(keys))
		}
		return nil
	})
	for _, size := range sizes {
		r.Figure(harness.Figure{
			What: fmt.Sprintf("memory per remembered key, empty result, at %s keys, %s", harness.Brief(float64(size.keys)), size.name),
			Unit: "B", AtMost: true, Bar: size.bar, Goal: size.goal, From: harness.Measured(size.metric),
		})
	}
}
