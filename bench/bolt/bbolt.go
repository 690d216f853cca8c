package boltbench

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

var (
	bucket = []byte("keys")
	// The records of the baselines: 40 bytes, enough for an expiry, a token and a
	// fingerprint. The baselines keep no lease and check no token.
	claimed = make([]byte, 40)
	done    = append([]byte{1}, make([]byte, 39)...)
)

// plain is bbolt as one uses it, with a record for each key under the key.
type plain struct {
	stream *work.Stream
	fill   int
	run    func(db *bolt.DB, b *work.Batch) error
}

func (p *plain) round(_ context.Context, r *harness.Round) (err error) {
	db, err := bolt.Open(filepath.Join(r.Dir, "keys.db"), 0o600, &bolt.Options{FreelistType: bolt.FreelistMapType, NoFreelistSync: true})
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

// filled puts the first keys in, in large transactions and sorted, which is far
// faster than the work itself.
func (p *plain) filled(db *bolt.DB) error {
	db.NoSync = true
	for left := p.fill; left >= 0; left -= 100_000 {
		keys := p.stream.Fresh(min(left, 100_000)).Keys
		slices.SortFunc(keys, func(a, b work.UUID) int { return bytes.Compare(a[:], b[:]) })
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			for i := range keys {
				err = errors.Join(err, b.Put(keys[i][:], done))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	db.NoSync = false
	return db.Sync()
}

// oneByOne claims each message in a transaction and completes it in another.
func oneByOne(db *bolt.DB, b *work.Batch) error {
	for i := range b.Keys {
		key, granted := b.Keys[i][:], false
		err := db.Update(func(tx *bolt.Tx) error {
			keys := tx.Bucket(bucket)
			if granted = keys.Get(key) == nil; !granted {
				return nil
			}
			return keys.Put(key, claimed)
		})
		if err == nil && granted {
			b.Handled(1)
			err = db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucket).Put(key, done) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// inBatches claims a batch and completes the one before in one transaction.
func inBatches(db *bolt.DB, b *work.Batch) error {
	var granted, before [][]byte
	for from := 0; from < len(b.Keys) || len(before) > 0; from += work.BatchSize {
		granted = nil
		err := db.Update(func(tx *bolt.Tx) error {
			keys := tx.Bucket(bucket)
			for _, key := range before {
				if err := keys.Put(key, done); err != nil {
					return err
				}
			}
			for i := from; i < min(from+work.BatchSize, len(b.Keys)); i++ {
				key := b.Keys[i][:]
				if keys.Get(key) != nil {
					continue
				}
				if err := keys.Put(key, claimed); err != nil {
					return err
				}
				granted = append(granted, key)
			}
			return nil
		})
		if err != nil {
			return err
		}
		b.Handled(len(granted))
		before = granted
	}
	return nil
}
