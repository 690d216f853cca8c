package boltstore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

const (
	// An entry takes no fewer bytes in a file.
	minEntry = headLen + crcLen
	// lostSource is the source of records whose own is lost.
	lostSource = "?"
)

// Report says what Repair did.
type Report struct {
	Lost []*DamageError // what could not be read, in the order of the log; none: nothing was done
	Kept int            // records that live on
	// Unnamed is how many of those have a First whose Source is "?": its name was
	// among what could not be read, now or in an earlier repair. They work as
	// before; that Source is for people.
	Unnamed int
	Since   time.Time // what the store vouches for now
}

// Repair makes a store whole whose Open fails with ErrCorrupt: it writes the
// newest readable record of each key into new files, and removes the old ones.
// What cannot be read is dropped and reported. As nobody knows which keys that
// concerns, the store vouches from now on only: older messages without a record
// are Stale. A key whose last entry was lost goes back to the one before. Names of
// sources stand apart from the records in a file: those of a lost one are kept.
//
// The store must not be open. Copy the directory first: what is dropped cannot
// be got back. A Repair that was interrupted can be run again.
func Repair(dir string, o *Options) (_ Report, err error) {
	options, err := o.filled()
	if err != nil {
		return Report{}, err
	}
	if dir == "" {
		return Report{}, errNoDir
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return Report{}, fmt.Errorf("boltstore: %s is not a directory: name that of the store", dir)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, unlockDir(lock)) }()
	kept, since, err := check(dir, options)
	var damage *DamageError
	if err == nil || !errors.As(err, &damage) {
		return Report{Kept: kept, Since: since}, err
	}
	r := &repair{dir: dir, options: options, newest: make(map[dedup.ID]location)}
	defer func() {
		for _, f := range r.files {
			err = errors.Join(err, f.release())
		}
	}()
	if err := r.read(); err != nil {
		return Report{}, err
	}
	if len(r.lost) == 0 { // every entry can be found, but not in the way of a reader
		r.lost = append(r.lost, damage)
	}
	return r.write()
}

// check reads a store as Open does.
func check(dir string, o Options) (kept int, since time.Time, err error) {
	r := recovery{Store: &Store{dir: dir, options: o, hash: hashID}}
	defer func() {
		for _, f := range r.files {
			err = errors.Join(err, f.release())
		}
	}()
	if err := r.run(); err != nil {
		return 0, time.Time{}, err
	}
	if len(r.files) == 0 {
		return 0, time.Time{}, fmt.Errorf("boltstore: %s: there is no store: name the directory of one", dir)
	}
	return r.index.n, r.memory.At(newClock(o.Now, r.time).now()), nil
}

type repair struct {
	dir     string
	options Options
	numbers []uint64
	files   []*file
	lost    []*DamageError
	state   state // the latest, with the latest time and the highest token
	last    uint64
	newest  map[dedup.ID]location
}

type location struct {
	file *file
	seq  uint64
}

// read finds the newest readable record of each key, and what cannot be read.
func (r *repair) read() (err error) {
	if r.numbers, _, err = listFiles(r.dir); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	for _, n := range r.numbers {
		f, st, err := openFile(r.dir, n, &r.options)
		var damage *DamageError
		switch {
		case errors.As(err, &damage):
			r.lost = append(r.lost, damage)
			continue
		case err != nil:
			return err
		}
		if len(r.files) > 0 {
			if st.id != r.state.id {
				return errors.Join(fmt.Errorf("boltstore: %s: the file is of another store: move it away", f.path), f.release())
			}
			if f.first > r.last+1 {
				r.lose(&DamageError{File: f.path, Sequence: r.last + 1, Last: f.first - 1, Offset: -1, Cause: errors.New("the files before are missing")})
			}
		}
		r.files = append(r.files, f)
		if _, err := lastTx(f.path, f.db.Info().PageSize); err != nil {
			r.lose(&DamageError{File: f.path, Offset: -1, Cause: err})
		}
		r.observe(st)
		f.sources.Store(&lostSources)
		r.last, err = walk(f, func(seq uint64, value []byte) error { return r.take(f, seq, value) })
		if err != nil {
			return err
		}
	}
	return nil
}

// lostSources are the sources of a file before any name in it was read.
var lostSources = slices.Repeat([]string{lostSource}, maxSources)

// observe takes over what a state entry says. A later one replaces it, but time
// and token never fall.
func (r *repair) observe(st state) {
	st.time, st.high = latest(st.time, r.state.time), max(st.high, r.state.high)
	r.state = st
}

// walk calls fn for the entries of a file, in order, with nil for what cannot be
// found. It goes from one to the next as long as there is a way, and then looks
// for each by itself, so that a damaged page takes no others with it. It returns
// the last sequence number. An error is fn's.
func walk(f *file, fn func(seq uint64, value []byte) error) (last uint64, err error) {
	last = f.first
	next := f.first
	err = f.read(func(tx *bolt.Tx, b *bolt.Bucket) error {
		most := f.first + uint64(tx.Size())/minEntry // damage can make any number
		last = min(max(last, b.Sequence()), most)
		c := b.Cursor()
		for key, value := c.First(); len(key) == 8 && seqOf(key) == next; key, value = c.Next() {
			next++
			if err := fn(next-1, value); err != nil {
				return stopped{err}
			}
		}
		if key, _ := c.Last(); len(key) == 8 {
			last = min(max(last, seqOf(key)), most)
		}
		return nil
	})
	for ; next <= last && !errors.As(err, new(stopped)); next++ {
		missing := true
		err = f.read(func(_ *bolt.Tx, b *bolt.Bucket) error {
			key := keyOf(next)
			value := b.Get(key[:])
			missing = false
			if err := fn(next, value); err != nil {
				return stopped{err}
			}
			return nil
		})
		if missing {
			if err := fn(next, nil); err != nil {
				return last, err
			}
		}
	}
	var stop stopped
	if errors.As(err, &stop) {
		return last, stop.error
	}
	return max(last, next-1), nil
}

// stopped tells an error of walk's fn from damage.
type stopped struct{ error }

// lose reports what cannot be read, as one with what was lost just before it.
func (r *repair) lose(d *DamageError) {
	if n := len(r.lost); n > 0 && d.Sequence > 0 {
		if before := r.lost[n-1]; before.File == d.File && before.Sequence > 0 && before.Last+1 == d.Sequence {
			before.Last = d.Last
			return
		}
	}
	r.lost = append(r.lost, d)
}

// take takes over an entry, or reports that it cannot be read.
func (r *repair) take(f *file, seq uint64, value []byte) error {
	err := errors.New("the entry is missing")
	if value != nil {
		err = r.replay(f, seq, value)
	}
	if err == nil {
		return nil
	}
	err = f.damage(seq, value, err)
	var damage *DamageError
	if errors.As(err, &damage) {
		r.lose(damage)
		return nil
	}
	return err // of a format that we do not know
}

func (r *repair) replay(f *file, seq uint64, value []byte) error {
	k, body, err := unseal(value, seq)
	if err != nil {
		return err
	}
	switch k {
	case kindState:
		st, err := decodeState(body)
		if err != nil {
			return err
		}
		r.observe(st)
		return nil
	case kindSource:
		n, source, err := decodeSource(body)
		if err == nil {
			f.addSource(n, source)
		}
		return err
	}
	e, err := decodeEntry(k, body, f.base, *f.sources.Load(), seq)
	if err != nil {
		return err
	}
	r.state.time = latest(r.state.time, e.written)
	r.state.high = max(r.state.high, e.record.Token)
	if k == kindForgotten {
		delete(r.newest, e.id)
	} else {
		r.newest[e.id] = location{f, seq}
	}
	return nil
}

// write writes what was found into new files, behind all others, and then
// removes those.
func (r *repair) write() (report Report, err error) {
	s := &Store{
		dir: r.dir, options: r.options, log: r.options.Logger,
		hash: hashID, commit: (*bolt.Tx).Commit, held: make(map[dedup.ID]*standing),
		clock: newClock(r.options.Now, r.state.time), boot: r.state.high, high: r.state.high,
		id: r.state.id, last: r.last + 1, space: newSpace(r.dir, &r.options),
	}
	now := s.clock.now()
	s.memory = horizon.New(now)
	s.memory.TTL = r.state.memory.TTL
	if s.id == (storeID{}) {
		if _, err := rand.Read(s.id[:]); err != nil {
			return Report{}, fmt.Errorf("boltstore: %w", err)
		}
	}
	st := state{id: s.id, file: r.numbers[len(r.numbers)-1] + 1, time: now, memory: s.memory, high: s.high}
	f, err := createFile(&s.space, s.last, &st, &r.options)
	if err != nil {
		return Report{}, err
	}
	s.files = []*file{f}
	defer func() {
		for _, f := range s.files {
			err = errors.Join(err, f.release())
		}
	}()
	report = Report{Lost: r.lost, Since: now}
	for _, d := range r.lost {
		d.repaired = true
	}
	if report.Kept, report.Unnamed, err = s.copyFrom(r.files, r.newest); err != nil {
		return Report{}, err
	}
	for _, n := range r.numbers {
		if err := os.Remove(filepath.Join(r.dir, fileName(n))); err != nil {
			return Report{}, fmt.Errorf("boltstore: remove a file that was copied: %w", err)
		}
		if err := syncDir(r.dir); err != nil {
			return Report{}, fmt.Errorf("boltstore: %w", err)
		}
	}
	return report, nil
}

// copyFrom appends the records that are the newest of their keys and have not
// expired, and returns how many, and how many of them without their source.
func (s *Store) copyFrom(files []*file, newest map[dedup.ID]location) (n, unnamed int, err error) {
	b := s.newBatch()
	defer b.end()
	for _, f := range files {
		_, err := walk(f, func(seq uint64, value []byte) error {
			_, e, err := f.decode(seq, value)
			if err != nil || newest[e.id] != (location{f, seq}) || !e.record.Expires.After(b.now) {
				return nil // reported before, or not to be kept
			}
			e.record.Result = bytes.Clone(e.record.Result)
			b.add(e.id, standing{record: e.record, seq: seq}).rewrite()
			n++
			if e.record.First.Source == lostSource {
				unnamed++
			}
			if len(b.changes) < dedup.MaxBatch {
				return nil
			}
			err = b.write()
			b.end()
			b = s.newBatch()
			return err
		})
		if err != nil {
			return n, unnamed, err
		}
	}
	return n, unnamed, b.write()
}
