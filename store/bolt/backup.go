package boltstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// So many records are copied in one transaction, or so many bytes of results.
const (
	copyRecords = 1024
	copyBytes   = 1 << 20
)

// enough says whether it is time to write what was added.
func (b *batch) enough() bool { return len(b.changes) >= copyRecords || b.results >= copyBytes }

// neverOpened is what a copy vouches from until it is opened: nobody knows how
// long the store that it was made of goes on.
var neverOpened = time.Unix(0, math.MaxInt64).UTC()

// Backup makes a copy of the store in dir, while the store is in use. dir must be empty or
// not exist. The copy contains every change that was answered before the call, and may
// contain later ones. Backup reads every record, and fails if one is damaged.
//
// The copy is a store with an identity of its own. It does not contain what is recorded
// after it was made, so it vouches only from the time when it is first opened: older
// messages without a record are stale. Claims in it count as those of a dead process.
//
// The copy appears in dir as a whole or not at all. Until then it is in a directory beside
// dir, whose name has ".tmp" at its end. To restore the copy, stop the program and move the
// copy to the place of the store.
func (s *Store) Backup(ctx context.Context, dir string) (err error) {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if dir == "" {
		return errNoDir
	}
	dir = filepath.Clean(dir)
	if entries, err := os.ReadDir(dir); len(entries) > 0 {
		return fmt.Errorf("boltstore: back up to %s: the directory is not empty: name another", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("boltstore: back up: %w: name a directory that this user can reach", err)
	}
	tmp := dir + tmpSuffix
	if err := os.MkdirAll(filepath.Dir(tmp), 0o700); err != nil {
		return fmt.Errorf("boltstore: back up: %w: name a directory that this user can make", err)
	}
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return fmt.Errorf("boltstore: back up: %w: remove what an earlier backup left there, or name another directory", err)
	}
	err = s.copyTo(ctx, tmp)
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		err = syncDir(filepath.Dir(dir))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("boltstore: back up to %s: %w", dir, err), os.RemoveAll(tmp))
	}
	return nil
}

// copyTo writes the records into files of a new store in dir.
func (s *Store) copyTo(ctx context.Context, dir string) (err error) {
	s.mu.Lock()
	high, ttl := s.high, s.memory.TTL
	s.mu.Unlock()
	c := &Store{
		dir: dir, options: s.options, log: s.log, hash: s.hash, commit: (*bolt.Tx).Commit,
		held: make(map[driver.ID]*standing), clock: s.clock,
		high: high, last: 1, memory: horizon.New(neverOpened), space: newSpace(dir, &s.options),
	}
	c.memory.TTL = ttl
	if _, err := rand.Read(c.id[:]); err != nil {
		return err
	}
	f, err := createFile(&c.space, 1, &state{id: c.id, file: 1, time: c.clock.now(), memory: c.memory, high: high, up: c.clock.uptime()}, &c.options)
	if err != nil {
		return err
	}
	c.files = []*file{f}
	defer func() {
		for _, f := range c.files {
			err = errors.Join(err, f.release())
		}
	}()
	b := c.newBatch()
	defer b.end()
	for r, err := range s.Records(ctx) {
		if err != nil {
			return err
		}
		b.add(r.ID, standing{record: r.Record}, nil).rewrite()
		if !b.enough() {
			continue
		}
		// Nobody reads the copy yet, so it needs no index.
		if err := b.append(); err != nil {
			return err
		}
		b.end()
		b = c.newBatch()
	}
	if len(b.changes) > 0 {
		if err := b.append(); err != nil {
			return err
		}
		b.end()
	}
	s.mu.Lock()
	c.high = s.high
	s.mu.Unlock()
	return c.writeState()
}

// firstOpened makes a copy a store that vouches from now on. The caller has the
// right to write.
func (s *Store) firstOpened() error {
	if !s.memory.Since.Equal(neverOpened) {
		return nil
	}
	ttl := s.memory.TTL
	s.memory = horizon.New(s.clock.latest())
	s.memory.TTL = ttl
	return s.writeState()
}
