package boltbench

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
)

// fileBytes is the metric of bytes that a message adds to the files of the log.
const fileBytes = "file B"

// ours is our store, which stays in its directory between rounds.
type ours struct {
	stream  *work.Stream
	fill    int    // keys recorded before the first round
	result  []byte // of those
	repeats bool   // every message repeats one of them
	run     func(ctx context.Context, s *boltstore.Store, b *work.Batch, r *harness.Round) error
}

func (o *ours) round(ctx context.Context, r *harness.Round) (err error) {
	s, err := open(r.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if r.Number == 0 {
		if err := work.Fill(ctx, s, o.stream, o.fill, o.result); err != nil {
			return err
		}
	}
	next := o.stream.Next
	if o.repeats {
		next = o.stream.Repeats
	}
	b := next(r.Messages)
	before, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	if err := o.run(ctx, s, b, r); err != nil {
		return err
	}
	after, err := s.Stats(ctx)
	if err != nil {
		return err
	}
	r.Count(fileBytes, float64(after.Bytes-before.Bytes))
	return b.Check()
}

// open opens the store in dir. A new one takes the operator's word that nothing
// was processed before: the bench's messages are as old as the store.
func open(dir string) (*boltstore.Store, error) {
	return boltstore.Open(filepath.Join(dir, "store"), &boltstore.Options{VouchFrom: time.Now().Add(-2 * work.TTL)})
}

// doBatch and do go through the public API.
func doBatch(ctx context.Context, s *boltstore.Store, b *work.Batch, r *harness.Round) error {
	d, err := work.NewDeduplicator(s)
	if err != nil {
		return err
	}
	r.Start()
	err = b.DoBatch(ctx, d)
	r.Stop()
	return errors.Join(err, d.Shutdown(ctx))
}

func do(ctx context.Context, s *boltstore.Store, b *work.Batch, r *harness.Round) error {
	d, err := work.NewDeduplicator(s)
	if err != nil {
		return err
	}
	r.Start()
	err = b.Do(ctx, d)
	r.Stop()
	return errors.Join(err, d.Shutdown(ctx))
}

func apply(ctx context.Context, s *boltstore.Store, b *work.Batch, r *harness.Round) error {
	ops := b.Ops()
	r.Start()
	err := b.Apply(ctx, s, ops)
	r.Stop()
	return err
}
