package boltstore

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/forget"
)

// So many records are read at once, between which the store serves others.
const readStep = 64

// Lookup implements [driver.Inspector].
func (s *Store) Lookup(ctx context.Context, id driver.ID) (driver.Record, error) {
	if err := s.usable(ctx); err != nil {
		return driver.Record{}, err
	}
	var v view
	c, err := s.load(&v, id)
	if closing := v.close(); err == nil {
		err = closing
	}
	if err != nil || !c.record.Expires.After(s.clock.now()) {
		return driver.Record{}, err
	}
	c.record.Note = bytes.Clone(c.record.Note) // the one in memory is the store's
	return c.record, nil
}

// Records implements [driver.Inspector]. It reads from random places on disk, a few records
// at a time. Files that the store removes during the iteration keep their space on disk a
// little longer.
func (s *Store) Records(ctx context.Context) iter.Seq2[driver.StoredRecord, error] {
	return func(yield func(driver.StoredRecord, error) bool) {
		var v view
		fail := func(err error) {
			_ = v.close() // there is a better error to report
			yield(driver.StoredRecord{}, err)
		}
		for i := range s.index.shards {
			// The entries of one moment, and the files that they are in: whatever
			// becomes of the records, each is seen as it was then.
			slots := s.snapshot(&v, i)
			if err := s.usable(ctx); err != nil { // after it: of a store that is not there are none
				fail(err)
				return
			}
			for chunk := range slices.Chunk(slots, readStep) {
				records, err := s.readAll(ctx, &v, chunk)
				for _, r := range records {
					if !yield(r, nil) {
						_ = v.close() // of readers only
						return
					}
				}
				if err != nil {
					fail(err)
					return
				}
			}
			if err := v.close(); err != nil {
				fail(err)
				return
			}
		}
	}
}

// snapshot copies a part of the index, in the order of the log, and pins the
// files that it names.
func (s *Store) snapshot(v *view, part int) []slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil
	}
	var slots []slot
	for _, x := range s.index.shards[part].slots {
		if x.seq != 0 {
			slots = append(slots, x)
			v.pin(s.fileOf(x.seq))
		}
	}
	slices.SortFunc(slots, func(a, b slot) int { return cmp.Compare(a.seq, b.seq) })
	return slots
}

// readAll reads the living records of slots. Those before one that cannot be
// read come with the error.
func (s *Store) readAll(ctx context.Context, v *view, slots []slot) ([]driver.StoredRecord, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	defer v.rest()
	var records []driver.StoredRecord
	for _, x := range slots {
		e, err := v.get(x.seq)
		if err != nil {
			return records, err
		}
		r := s.lapsed(e.record)
		s.mu.Lock()
		if c := s.held[e.id]; c != nil && c.record.Token == r.Token {
			r = c.record
			r.Note = bytes.Clone(r.Note)
		}
		s.mu.Unlock()
		if r.Expires.After(s.clock.now()) {
			records = append(records, driver.StoredRecord{ID: e.id, Record: r})
		}
	}
	return records, nil
}

// Stats implements [driver.Inspector]. Bytes is the room in use. On disk the newest file
// takes up to 32 MiB more. Limit is the smaller of the limits that follow from
// Options.MaxBytes and from the free space of the disk.
func (s *Store) Stats(ctx context.Context) (driver.Stats, error) {
	if err := s.usable(ctx); err != nil {
		return driver.Stats{}, err
	}
	free, freeErr := s.space.free(s.dir) // may wait for the disk
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return driver.Stats{}, s.err
	}
	st := driver.Stats{
		Records: int64(s.index.n),
		Oldest:  s.files[0].base,
		Now:     s.clock.now(),
		Token:   s.high,
		Vouch:   s.vouch(),
	}
	for _, f := range s.files {
		st.Bytes += f.size.Load()
	}
	st.Limit = s.limit()
	if freeErr == nil {
		newest := s.files[len(s.files)-1]
		ahead := max(newest.allocated.Load()-newest.size.Load(), 0)
		limit := max(st.Bytes+free+ahead-s.space.reserve, 1)
		if st.Limit == 0 || limit < st.Limit {
			st.Limit = limit
		}
	}
	return st, nil
}

// Forget implements [driver.Inspector]. The records stay forgotten after a new Open.
func (s *Store) Forget(ctx context.Context, ids []driver.ID) error { return s.forget(ctx, ids, false) }

// ForceForget implements [driver.Inspector].
func (s *Store) ForceForget(ctx context.Context, ids []driver.ID) error {
	return s.forget(ctx, ids, true)
}

func (s *Store) forget(ctx context.Context, ids []driver.ID, force bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.beginWrite(ctx); err != nil {
		return err
	}
	defer s.endWrite()
	b := s.newBatch()
	for i, c := range b.load(len(ids), func(i int) driver.ID { return ids[i] }) {
		switch {
		case c.err != nil:
			return c.err
		case c.changed || !c.record.Expires.After(b.now):
			continue // twice in ids, or nothing to forget
		}
		if err := forget.Refusal(&c.record, b.now, force); err != nil {
			return fmt.Errorf("boltstore: forget %v: %w", ids[i], err)
		}
		c.record, c.changed, c.append = driver.Record{}, true, true
	}
	return b.write()
}

func (s *Store) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
