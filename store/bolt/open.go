package boltstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// Open opens the store in dir. If there is none, it creates dir and a store. o may be nil.
// Open reads all files, which takes about a second for a million records.
//
// The error matches [ErrInUse] if another process has the store open, [ErrCorrupt] if
// something cannot be read (see [Repair]), and [ErrFormat] if a newer version of this
// package wrote it. In these cases nothing is written.
//
// Close the Store when nobody uses it any more, after the Shutdown of its Deduplicators.
func Open(dir string, o *Options) (*Store, error) {
	return openWith(dir, o, hashID)
}

func openWith(dir string, o *Options, hash func(driver.ID) uint64) (_ *Store, err error) {
	options, err := o.filled()
	if err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir:     dir,
		options: options,
		log:     options.Logger,
		lock:    lock,
		space:   newSpace(dir, &options),
		hash:    hash,
		commit:  (*bolt.Tx).Commit,
		writer:  make(chan struct{}, 1),
		held:    make(map[driver.ID]*standing),
		stop:    make(chan struct{}),
	}
	defer func() {
		if err != nil {
			for _, f := range s.files {
				err = errors.Join(err, f.release())
			}
			err = errors.Join(err, unlockDir(lock))
		}
	}()
	r := recovery{Store: s}
	if err := r.run(); err != nil {
		return nil, err
	}
	if why := doubts(dir); why != "" {
		s.log.Warn("the store's file system is doubtful", "dir", dir, "why", "it is "+why, "do", "choose a directory on a local disk")
	}
	// Nothing was written so far. From here on the store is ours.
	if err := signLock(lock); err != nil {
		return nil, fmt.Errorf("boltstore: write to %s: %w: free space on its disk, or choose another directory", lock.Name(), err)
	}
	for _, name := range r.unfinished {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("boltstore: remove what was never finished: %w: make the directory writable for this user", err)
		}
	}
	s.clock = newClock(&options, r.said, r.time)
	s.opened = s.clock.now()
	s.boot = s.high
	if wall := s.clock.opened; wall.Sub(s.opened).Abs() > tolerated {
		s.log.Warn("the wall clock was set, is wrong, or went on while the system slept: the store goes by its own time until the next boot", "dir", dir, "wall clock", wall.Round(0), "store time", s.opened)
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	s.name = hex.EncodeToString(s.id[:])
	if err := errors.Join(s.firstOpened(), s.noteBoot(r.said)); err != nil {
		return nil, err
	}
	s.endWrite()
	s.tending.Add(1)
	go s.run()
	return s, nil
}

var errNoDir = errors.New("boltstore: no directory was given: name that of the store")

// makeDir makes the directory if it is missing.
func makeDir(dir string) error {
	if dir == "" {
		return errNoDir
	}
	info, err := os.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("boltstore: %s is not a directory: choose another path", dir)
	case err == nil:
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("boltstore: %w: choose a path that this user can reach", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("boltstore: %w: create it for this user, or choose another path", err)
	}
	return syncDir(filepath.Dir(filepath.Clean(dir)))
}

// prepare makes the newest file one that can be written to, or the first one.
func (s *Store) prepare() error {
	if len(s.files) == 0 {
		st := state{file: 1, time: s.opened, memory: horizon.New(s.options.VouchFrom), up: s.clock.uptime()}
		if s.options.VouchFrom.IsZero() {
			st.memory = horizon.New(s.opened)
		}
		if _, err := rand.Read(st.id[:]); err != nil {
			return fmt.Errorf("boltstore: %w", err)
		}
		f, err := createFile(&s.space, 1, &st, &s.options)
		if err != nil {
			return err
		}
		s.id, s.memory, s.last = st.id, st.memory, 1
		s.files = []*file{f}
		return nil
	}
	f := s.files[len(s.files)-1]
	if err := f.db.Close(); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	db, handle, err := openDB(f.path, false, s.options.RollBytes)
	if err != nil {
		s.files = s.files[:len(s.files)-1]
		return err
	}
	f.db, f.handle = db, handle
	// Most of it is the file's already. A disk that is full shows with a claim.
	if err := s.space.secure(f, f.size.Load()+s.space.reserve, false); !errors.Is(err, ErrFull) {
		return err
	}
	return nil
}
