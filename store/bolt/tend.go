package boltstore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

const (
	tendEvery = time.Second
	// So many entries of an expired file are looked at while the writer waits.
	tendStep = 512
)

// run tends the store until it is closed.
func (s *Store) run() {
	defer s.tending.Done()
	t := time.NewTicker(tendEvery)
	defer t.Stop()
	failing := false
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
		}
		err := s.tend()
		if err != nil && !failing && !errors.Is(err, ErrPoisoned) && !errors.Is(err, errStopped) {
			s.log.Error("expired files stay for now", "dir", s.dir, "err", err)
		}
		failing = err != nil
	}
}

var errStopped = errors.New("the store is being closed")

// tend does what time asks for, in steps between which others write: it drops
// what has expired, and writes down what only memory knows.
func (s *Store) tend() error {
	s.tender.Lock()
	defer s.tender.Unlock()
	var full error
	for _, step := range []func() error{s.tendClaims, s.rollIdle} {
		if err := step(); errors.Is(err, ErrFull) {
			full = err // what has expired makes room
		} else if err != nil {
			return err
		}
	}
	for {
		f := s.expired()
		if f == nil {
			return full
		}
		if err := s.drop(f); err != nil {
			return err
		}
	}
}

// asWriter runs fn with the right to write.
func (s *Store) asWriter(fn func() error) error {
	select {
	case <-s.writer:
	case <-s.stop:
		return errStopped
	}
	defer s.endWrite()
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return fn()
}

// tendClaims writes again those that have been renewed for long, and takes those
// whose lease has ended out of memory.
func (s *Store) tendClaims() error {
	return s.asWriter(func() error {
		b := s.newBatch()
		b.renewed(func(c *standing) bool {
			if !c.record.LeaseEnd.After(b.now) {
				return true
			}
			ttl := c.record.Expires.Sub(c.record.LeaseEnd)
			return c.record.Expires.Sub(c.stored) > ttl/16
		}, driver.MaxBatch)
		var err error
		if len(b.changes) > 0 {
			err = s.spare(b.changes)
		}
		if err == nil {
			err = b.write()
		}
		if err != nil && !errors.Is(err, ErrFull) {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, c := range s.held {
			if !c.record.LeaseEnd.After(b.now) && !c.renewed {
				delete(s.held, id)
			}
		}
		return err
	})
}

// renewed adds claims to the batch, to be written as they are in memory: those
// that were renewed since they were written, for which fn says so. limit is how
// many at most; 0: all.
func (b *batch) renewed(fn func(*standing) bool, limit int) {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	for id, c := range b.s.held {
		if c.renewed && fn(c) && (limit == 0 || len(b.changes) < limit) {
			b.add(id, *c, c).rewrite()
		}
	}
}

// rollIdle starts a new file if the newest is old enough, so that it can be
// dropped one day although nothing more is written.
func (s *Store) rollIdle() error {
	return s.asWriter(func() error {
		_, err := s.writable(s.clock.now())
		return err
	})
}

// expired returns the oldest file if it can be dropped. It is always the oldest:
// a record in it may be older than another of the same key, or than the entry
// that says the key is forgotten, and must not outlive that.
func (s *Store) expired() *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) < 2 || !s.files[0].expiries.few(s.clock.now()) {
		return nil
	}
	return s.files[0]
}

// drop removes the oldest file. What still lives in it is written again first.
func (s *Store) drop(f *file) error {
	if err := s.carry(f); err != nil {
		return err
	}
	// Nothing in memory names the file any more. It goes from the list when it is
	// gone from the directory: there must be no gap between files.
	if err := os.Remove(filepath.Join(s.dir, fileName(f.number))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.files) == 0 || s.files[0] != f {
		s.mu.Unlock()
		return nil
	}
	s.files = append([]*file(nil), s.files[1:]...)
	s.mu.Unlock()
	return f.release()
}

// remains is a record in a file that is to be dropped, and where it is.
type remains struct {
	seq uint64
	entry
}

// carry takes everything out of f, in steps: what has expired costs no write, and
// what lives is written again many at a time, however far apart it is in the file.
func (s *Store) carry(f *file) error {
	move := func(found []remains) error {
		if len(found) == 0 {
			return nil
		}
		return s.asWriter(func() error { return s.move(found) })
	}
	var found, expired, living []remains
	for seq := f.first; seq != 0; {
		var err error
		if found, seq, err = s.remains(found[:0], f, seq); err != nil {
			return err
		}
		now := s.clock.now()
		expired = expired[:0]
		for _, r := range found {
			if r.record.Expires.After(now) {
				living = append(living, r)
			} else {
				expired = append(expired, r)
			}
		}
		if err := move(expired); err != nil {
			return err
		}
		if len(living) >= tendStep/2 {
			if err := move(living); err != nil {
				return err
			}
			living = living[:0]
		}
	}
	return move(living)
}

// move takes records out of their file as far as the index has them there still:
// what has expired is forgotten, the rest appended to the newest file. The caller
// has the right to write.
func (s *Store) move(found []remains) error {
	b := s.newBatch()
	s.mu.Lock()
	for _, r := range found {
		// A key that got another record since is none of ours.
		if !s.index.has(s.hash(r.id), r.seq) {
			continue
		}
		at := standing{record: s.lapsed(r.record), seq: r.seq, stored: r.record.Expires}
		held := s.held[r.id]
		if held != nil && held.seq == r.seq {
			at = *held // renewed
		}
		if at.record.Expires.After(b.now) {
			b.add(r.id, at, held).rewrite()
		}
	}
	s.mu.Unlock()
	if len(b.changes) > 0 {
		if err := s.spare(b.changes); err != nil {
			return err
		}
	}
	if err := b.write(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range found {
		s.index.remove(s.hash(r.id), r.seq)
	}
	return nil
}

// remains reads one step of the entries of f from seq on, and returns those that
// the index has, in the room of buffer, and where to go on; 0: nowhere.
func (s *Store) remains(buffer []remains, f *file, seq uint64) (found []remains, next uint64, err error) {
	found = buffer
	err = f.read(func(_ *bolt.Tx, log *bolt.Bucket) error {
		key := keyOf(seq)
		c := log.Cursor()
		n := 0
		for key, value := c.Seek(key[:]); key != nil; key, value = c.Next() {
			seq := seqOf(key)
			if n >= tendStep {
				next = seq
				break
			}
			for _, b := range entries(value) {
				k, e, err := f.decode(seq, b)
				if err != nil {
					return f.damage(seq, b, err)
				}
				if k.state() != driver.StateFree {
					found = append(found, remains{seq, e})
				}
				seq++
				n++
			}
		}
		s.mu.Lock()
		found = slices.DeleteFunc(found, func(r remains) bool { return !s.index.has(s.hash(r.id), r.seq) })
		s.mu.Unlock()
		for i := range found {
			r := &found[i].record
			r.Result, r.Note = bytes.Clone(r.Result), bytes.Clone(r.Note)
		}
		return nil
	})
	return found, next, err
}

// writeState writes, as the last thing, the claims that were renewed since they
// were written, and the time. The caller has the right to write.
func (s *Store) writeState() error {
	b := s.newBatch()
	b.renewed(func(*standing) bool { return true }, 0)
	if err := b.write(); err != nil {
		return err
	}
	f := s.newest()
	s.mu.Lock()
	st := state{id: s.id, file: f.number, time: b.now, memory: s.memory, high: s.high, up: s.clock.uptime()}
	p := &b.packer
	p.clear()
	p.next = s.last + 1
	s.mu.Unlock()
	p.add(appendState(nil, p.next, &st))
	return s.appendTo(f, p)
}
