// Package memstore keeps the records of a [dedup.Deduplicator] in memory. It is for tests
// and examples. Everything is forgotten when the process ends: after a restart, a message
// that the broker delivers again is a new message.
package memstore

import (
	"bytes"
	"container/heap"
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/forget"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// Options configure a [Store]. A nil *Options, and each zero field, means the default.
type Options struct {
	// Now is the clock. After New, only the time that passes on it counts: setting the wall
	// clock back or forward makes no record live longer or shorter. Default time.Now.
	Now func() time.Time
	// VouchFrom states that no message published since then was processed without this
	// store. Messages that are older than the store, but not older than VouchFrom, are then
	// not stale. Default: the time of New. A time after that has no effect.
	VouchFrom time.Time
}

// Store keeps records in memory. It implements [driver.Store] and [driver.Inspector]. It need
// not be closed, and starts no goroutine.
type Store struct {
	now   func() time.Time
	start time.Time // the clock's time at New: elapsed time counts from here
	base  time.Time // the store's time at New
	id    string

	mu      sync.Mutex
	last    time.Time    // store time never falls
	high    driver.Token // highest token issued or seen
	memory  horizon.Horizon
	entries map[driver.ID]*entry
	expiry  expiryHeap
}

var (
	_ driver.Store     = (*Store)(nil)
	_ driver.Recycler  = (*Store)(nil)
	_ driver.Inspector = (*Store)(nil)
)

// New returns an empty store. o may be nil.
func New(o *Options) *Store {
	s := &Store{now: time.Now, entries: make(map[driver.ID]*entry)}
	if o != nil && o.Now != nil {
		s.now = o.Now
	}
	s.start = s.now()
	s.base = s.start.UTC().Truncate(time.Microsecond)
	s.last = s.base
	s.id = rand.Text()
	s.memory = horizon.New(s.base)
	if o != nil && !o.VouchFrom.IsZero() && o.VouchFrom.Before(s.base) {
		s.memory = horizon.New(o.VouchFrom)
	}
	return s
}

// Apply implements [driver.Store]. Its answers last as long as the process.
func (s *Store) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return nil, nil
	}
	replies := room(len(ops))
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.time()
	for i, op := range ops {
		replies[i] = s.apply(op, now)
	}
	s.drop(now, 2*len(ops))
	return replies, nil
}

// used has replies of all stores, to be used again: *[]driver.Reply.
var used sync.Pool

// room returns replies to be overwritten, all of them.
func room(n int) []driver.Reply {
	if used, ok := used.Get().(*[]driver.Reply); ok && cap(*used) >= n {
		return (*used)[:n]
	}
	return make([]driver.Reply, n)
}

// Recycle implements [driver.Recycler].
func (s *Store) Recycle(replies []driver.Reply) {
	clear(replies) // results are the callers'
	used.Put(&replies)
}

func (s *Store) apply(op driver.Op, now time.Time) driver.Reply {
	var before driver.Record
	e := s.entries[op.ID]
	if e != nil {
		before = e.record
	}
	if op.Kind != driver.OpExtend {
		s.memory.See(op.TTL, now)
	}
	op.Result, op.Note = bytes.Clone(op.Result), bytes.Clone(op.Note) // the caller may reuse its slices
	after, reply := driver.Step(before, op, now, driver.NextToken(s.high, op.Floor, now))
	s.high = max(s.high, after.Token)
	s.keep(op.ID, e, after)
	own(&reply.Record) // the caller may change the reply
	return reply
}

// keep makes r the record of id. e is the entry of id so far, or nil.
func (s *Store) keep(id driver.ID, e *entry, r driver.Record) {
	switch {
	case r.State == driver.StateFree:
		s.remove(e)
	case e == nil:
		e = &entry{id: id, record: r}
		s.entries[id] = e
		heap.Push(&s.expiry, e)
	default:
		moved := !e.record.Expires.Equal(r.Expires)
		e.record = r
		if moved {
			heap.Fix(&s.expiry, e.index)
		}
	}
}

func (s *Store) remove(e *entry) {
	if e != nil {
		heap.Remove(&s.expiry, e.index)
		delete(s.entries, e.id)
	}
}

// drop frees the memory of at most limit expired records. The limit is more than a batch can
// create, and low enough that no call takes long.
func (s *Store) drop(now time.Time, limit int) {
	for ; limit > 0 && len(s.expiry) > 0 && !s.expiry[0].record.Expires.After(now); limit-- {
		s.remove(s.expiry[0])
	}
}

// time returns the store's time. It is in whole microseconds, as in the durable stores.
func (s *Store) time() time.Time {
	t := s.base.Add(s.now().Sub(s.start)).Truncate(time.Microsecond)
	if t.After(s.last) {
		s.last = t
	}
	return s.last
}

// Vouch implements [driver.Store].
func (s *Store) Vouch(context.Context) (driver.Vouch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vouch(s.time()), nil
}

func (s *Store) vouch(now time.Time) driver.Vouch {
	return driver.Vouch{ID: s.id, Since: s.memory.At(now)}
}

// Lookup implements [driver.Inspector].
func (s *Store) Lookup(ctx context.Context, id driver.ID) (driver.Record, error) {
	if err := ctx.Err(); err != nil {
		return driver.Record{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookup(id, s.time()), nil
}

func (s *Store) lookup(id driver.ID, now time.Time) driver.Record {
	e := s.entries[id]
	if e == nil || !e.record.Expires.After(now) {
		return driver.Record{}
	}
	r := e.record
	own(&r)
	return r
}

// own gives r bytes of its own.
func own(r *driver.Record) { r.Result, r.Note = bytes.Clone(r.Result), bytes.Clone(r.Note) }

// Records implements [driver.Inspector].
func (s *Store) Records(ctx context.Context) iter.Seq2[driver.StoredRecord, error] {
	return func(yield func(driver.StoredRecord, error) bool) {
		s.mu.Lock()
		ids := make([]driver.ID, 0, len(s.entries))
		for id := range s.entries {
			ids = append(ids, id)
		}
		s.mu.Unlock()
		for _, id := range ids {
			r, err := s.Lookup(ctx, id)
			if err != nil {
				yield(driver.StoredRecord{}, err)
				return
			}
			if r.State != driver.StateFree && !yield(driver.StoredRecord{ID: id, Record: r}, nil) {
				return
			}
		}
	}
}

// Stats implements [driver.Inspector]. Bytes, Limit, Oldest, Durability and Changes are zero.
func (s *Store) Stats(ctx context.Context) (driver.Stats, error) {
	if err := ctx.Err(); err != nil {
		return driver.Stats{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.time()
	return driver.Stats{Records: int64(len(s.entries)), Now: now, Token: s.high, Vouch: s.vouch(now)}, nil
}

// Forget implements [driver.Inspector].
func (s *Store) Forget(ctx context.Context, ids []driver.ID) error { return s.forget(ctx, ids, false) }

// ForceForget implements [driver.Inspector].
func (s *Store) ForceForget(ctx context.Context, ids []driver.ID) error {
	return s.forget(ctx, ids, true)
}

func (s *Store) forget(ctx context.Context, ids []driver.ID, force bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.time()
	for _, id := range ids {
		r := s.lookup(id, now)
		if err := forget.Refusal(&r, now, force); err != nil {
			return fmt.Errorf("memstore: forget %v: %w", id, err)
		}
	}
	for _, id := range ids {
		s.remove(s.entries[id])
	}
	return nil
}
