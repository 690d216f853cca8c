package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sort"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// Store is an open store. [Open] makes one. It implements [driver.Store], [driver.Recycler] and
// [driver.Inspector]. Its methods may be called by many goroutines at once.
type Store struct {
	dir     string
	options Options
	log     *slog.Logger
	lock    *os.File
	space   space
	clock   *clock
	opened  time.Time    // store time
	boot    driver.Token // highest token when the store was opened: a claim up to it is of a dead process
	id      storeID
	name    string // id in hexadecimal
	hash    func(driver.ID) uint64
	commit  func(*bolt.Tx) error // tests make it fail

	// writer has one value in it, and who took that out may write to the log.
	writer chan struct{}
	batch  batch // the writer's

	replies sync.Pool // of *[]driver.Reply that nobody uses

	// mu is held for moments, never while a disk is waited for. Lease ends change
	// under it, at a time that was read under it: what ended at a time read
	// earlier stays ended.
	mu     sync.Mutex
	files  []*file // in order; the last one takes the records
	last   uint64  // sequence number
	index  index
	held   map[driver.ID]*standing // claims that this Store granted, as long as their lease lives
	unused []*standing             // for the next ones
	high   driver.Token
	memory horizon.Horizon
	err    error // why nothing works any more

	closing sync.Once
	stop    chan struct{}
	tending sync.WaitGroup
	tender  sync.Mutex // held by who tends: one at a time drops files
}

var (
	_ driver.Store     = (*Store)(nil)
	_ driver.Recycler  = (*Store)(nil)
	_ driver.Inspector = (*Store)(nil)
)

// standing is how a key stands: its record, and where that is in the log.
type standing struct {
	record driver.Record
	seq    uint64    // 0: there is no record
	stored time.Time // Expires as it stands in the log

	// Of a claim that this Store granted and whose lease has not ended long since.
	renewed bool // since it was appended to the log
	beside  int  // renewals beside the writer
}

// Apply implements [driver.Store]. A change is on disk before it is answered. If the disk
// fails, every Reply of the batch has an error that matches [ErrPoisoned].
func (s *Store) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case len(ops) == 0:
		return nil, nil
	case onlyRenewals(ops):
		return s.extend(ops)
	}
	if err := s.beginWrite(ctx); err != nil {
		return nil, err
	}
	defer s.endWrite()
	replies := s.room(len(ops))
	b := s.newBatch()
	b.full = s.refusal(ops)
	for i, c := range b.load(len(ops), func(i int) driver.ID { return ops[i].ID }) {
		b.step(&ops[i], c, &replies[i])
	}
	if err := b.write(); errors.Is(err, ErrPoisoned) {
		for i := range replies {
			replies[i] = driver.Reply{Err: err}
		}
	} else if err != nil {
		return nil, err
	}
	return replies, nil
}

// room returns replies to be overwritten, all of them.
func (s *Store) room(n int) []driver.Reply {
	if used, ok := s.replies.Get().(*[]driver.Reply); ok && cap(*used) >= n {
		return (*used)[:n]
	}
	return make([]driver.Reply, n)
}

// Recycle implements [driver.Recycler].
func (s *Store) Recycle(replies []driver.Reply) {
	clear(replies) // results are the callers'
	s.replies.Put(&replies)
}

// onlyRenewals reports whether ops extend leases and do nothing else: a note is to
// be on disk.
func onlyRenewals(ops []driver.Op) bool {
	for i := range ops {
		if ops[i].Kind != driver.OpExtend || len(ops[i].Note) > 0 {
			return false
		}
	}
	return true
}

// extend carries out extends in memory, beside the writer. A claim that is
// being settled at the same time is still held as long as that is not on disk.
func (s *Store) extend(ops []driver.Op) ([]driver.Reply, error) {
	replies := make([]driver.Reply, len(ops))
	var rest []int
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		return nil, err
	}
	now := s.clock.now()
	for i := range ops {
		c := s.held[ops[i].ID]
		if c == nil {
			rest = append(rest, i)
			continue
		}
		after, reply := driver.Step(c.record, ops[i], now, 0)
		if reply.Status == driver.StatusOK {
			c.record, c.renewed = after, true
			c.beside++
		}
		reply.Record.Note = bytes.Clone(reply.Record.Note)
		replies[i] = reply
	}
	s.mu.Unlock()
	if len(rest) == 0 {
		return replies, nil
	}
	// No living lease: nothing changes, and the reply shows what there is.
	var v view
	for _, i := range rest {
		c, err := s.load(&v, ops[i].ID)
		if err != nil {
			replies[i] = driver.Reply{Err: err}
			continue
		}
		_, replies[i] = driver.Step(c.record, ops[i], now, 0)
	}
	if err := v.close(); err != nil {
		s.log.Error("close a dropped file", "dir", s.dir, "err", err)
	}
	return replies, nil
}

// Vouch implements [driver.Store].
func (s *Store) Vouch(ctx context.Context) (driver.Vouch, error) {
	if err := ctx.Err(); err != nil {
		return driver.Vouch{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vouch(), s.err
}

// vouch is Vouch for who holds mu. Messages are dated by clocks that are right, and a
// key that is new to the store is first seen at store time: if that is behind, a
// message that is older than the TTL would pass for one that is not. So the store
// vouches for no more than the TTL before the wall clock then. If it is that clock
// which is wrong, too much is flagged, and nothing is missed.
func (s *Store) vouch() driver.Vouch {
	now := s.clock.now()
	v := driver.Vouch{ID: s.name, Since: s.memory.At(now)}
	if wall := s.clock.latest(); wall.Sub(now) > tolerated && s.memory.TTL > 0 {
		v.Since = latest(v.Since, wall.Add(-s.memory.TTL))
	}
	return v
}

// beginWrite waits for the right to write.
func (s *Store) beginWrite(ctx context.Context) error {
	select {
	case <-s.writer:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	if err != nil {
		s.endWrite()
	}
	return err
}

func (s *Store) endWrite() {
	s.batch.end()
	s.writer <- struct{}{}
}

// poison makes the store refuse all further work because a write to a file failed.
func (s *Store) poison(path string, cause error) error {
	err := driver.Permanent(fmt.Errorf("boltstore: %s: %w, so what is on disk is unknown: close the store and open it again: %w", path, ErrPoisoned, cause))
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	s.log.Error("a write failed; the store refuses all further work", "dir", s.dir, "err", cause)
	return err
}

// load returns the record of id, expired or not, and where it is; seq is 0 if
// there is none. The record owns its Result.
func (s *Store) load(v *view, id driver.ID) (standing, error) {
	hash := s.hash(id)
	s.mu.Lock()
	if err := s.err; err != nil {
		s.mu.Unlock()
		return standing{}, err
	}
	if c := s.held[id]; c != nil {
		defer s.mu.Unlock()
		return *c, nil
	}
	v.seqs = s.index.find(v.seqs[:0], hash)
	for _, seq := range v.seqs {
		v.pin(s.fileOf(seq))
	}
	s.mu.Unlock()
	for _, seq := range v.seqs {
		e, err := v.get(seq)
		if err != nil {
			return standing{}, err
		}
		if e.id == id {
			return standing{record: s.lapsed(e.record), seq: seq, stored: e.record.Expires}, nil
		}
	}
	return standing{}, nil
}

// lapsed ends the lease of a claim that was granted before the store was opened.
func (s *Store) lapsed(r driver.Record) driver.Record {
	if r.State == driver.StateClaimed && r.Token <= s.boot && r.LeaseEnd.After(s.opened) {
		r.LeaseEnd = s.opened
	}
	return r
}

// fileOf returns the file that seq is in. The caller holds mu.
func (s *Store) fileOf(seq uint64) *file {
	i := sort.Search(len(s.files), func(i int) bool { return s.files[i].first > seq })
	return s.files[i-1]
}

// same reports whether two records are equal.
func same(a, b *driver.Record) bool {
	return a.State == b.State && a.Token == b.Token && a.Nonce == b.Nonce && a.Attempt == b.Attempt &&
		a.Ambiguous == b.Ambiguous && a.LeaseEnd.Equal(b.LeaseEnd) && a.Expires.Equal(b.Expires) &&
		a.FirstSeen.Equal(b.FirstSeen) && a.First == b.First && a.Fingerprint == b.Fingerprint &&
		a.Tag == b.Tag && a.Held == b.Held && bytes.Equal(a.Note, b.Note) &&
		a.Omitted == b.Omitted && bytes.Equal(a.Result, b.Result)
}

// Close writes the state that is only in memory to disk and releases the directory. It
// waits for an Apply that is under way. Later calls of other methods fail with [ErrClosed].
// A second Close does nothing.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.stop)
		s.tending.Wait()
		<-s.writer
		defer s.endWrite()
		s.mu.Lock()
		failed := s.err
		s.mu.Unlock()
		if failed == nil {
			err = s.writeState()
		}
		s.mu.Lock()
		if s.err == nil {
			s.err = driver.Permanent(fmt.Errorf("boltstore: %s: %w: open it again", s.dir, ErrClosed))
		}
		files := s.files
		s.files = nil
		s.mu.Unlock()
		for _, f := range files {
			err = errors.Join(err, f.release())
		}
		err = errors.Join(err, unlockDir(s.lock))
	})
	return err
}
