package boltbench

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// onPebble is an LSM tree with room in memory: claims of a batch and completes
// of the one before in one commit, synced.
type onPebble struct {
	stream *work.Stream
	fill   int
}

func (p *onPebble) round(_ context.Context, r *harness.Round) (err error) {
	cache := pebble.NewCache(256 << 20)
	defer cache.Unref()
	o := &pebble.Options{Cache: cache, MemTableSize: 64 << 20, Logger: silent{}}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(filepath.Join(r.Dir, "pebble"), o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if r.Number == 0 {
		if err := p.filled(db); err != nil {
			return err
		}
	}
	b := p.stream.Next(r.Messages)
	r.Start()
	err = p.run(db, b)
	r.Stop()
	return errors.Join(err, b.Check())
}

func (p *onPebble) filled(db *pebble.DB) error {
	for left := p.fill; left > 0; left -= 10_000 {
		batch := db.NewBatch()
		for _, key := range p.stream.Fresh(min(left, 10_000)).Keys {
			if err := batch.Set(key[:], done, nil); err != nil {
				return err
			}
		}
		if err := batch.Commit(pebble.NoSync); err != nil {
			return err
		}
	}
	return db.Flush()
}

func (p *onPebble) run(db *pebble.DB, b *work.Batch) error {
	var granted, before [][]byte
	for from := 0; from < len(b.Keys) || len(before) > 0; from += work.BatchSize {
		batch := db.NewBatch()
		for _, key := range before {
			if err := batch.Set(key, done, nil); err != nil {
				return err
			}
		}
		granted = nil
		seen := make(map[work.UUID]bool, work.BatchSize)
		for i := from; i < min(from+work.BatchSize, len(b.Keys)); i++ {
			if seen[b.Keys[i]] {
				continue
			}
			key := b.Keys[i][:]
			_, closer, err := db.Get(key)
			if err == nil {
				err = closer.Close()
				if err != nil {
					return err
				}
				continue
			}
			if !errors.Is(err, pebble.ErrNotFound) {
				return err
			}
			if err := batch.Set(key, claimed, nil); err != nil {
				return err
			}
			seen[b.Keys[i]] = true
			granted = append(granted, key)
		}
		if err := batch.Commit(pebble.Sync); err != nil {
			return err
		}
		b.Handled(len(granted))
		before = granted
	}
	return nil
}

// silent keeps Pebble's tales of its compactions off the screen.
type silent struct{}

func (silent) Infof(string, ...any)           {}
func (silent) Errorf(string, ...any)          {}
func (silent) Fatalf(format string, _ ...any) { panic("pebble: " + format) }
