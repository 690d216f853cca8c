package boltstore

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// Report is what [Verify] found, or what [Repair] did.
type Report struct {
	Lost []*DamageError // the parts that cannot be read, in the order of the log; empty if the store is whole
	Kept int            // number of readable records; if the store is whole, expired ones are counted too
	// Unnamed is how many of the readable records have the Source "?" in First: the name of
	// the source was in a part that could not be read, now or in an earlier repair. These
	// records work as before. The Source is for people.
	Unnamed int
	Since   time.Time // from when on the store vouches; zero after a Verify that found damage
}

// Repair mends a store whose Open fails with [ErrCorrupt]. It writes the newest readable
// record of each key into new files and removes the old files. Parts that cannot be read
// are dropped and reported.
//
// Nobody knows which keys were in those parts. The store therefore vouches only from now
// on: older messages without a record are stale. A key whose newest entry was dropped goes
// back to the entry before it. A damaged page costs the entries on it, and the entries on
// other pages only if it is one of the few pages that lead to them.
//
// The store must not be open. Copy the directory first, because dropped parts cannot be
// recovered. If a Repair was interrupted, run it again.
func Repair(dir string, o *Options) (_ Report, err error) {
	return onClosed(dir, o, func(options Options) (Report, error) {
		r, report, err := verify(dir, options)
		if err != nil || len(report.Lost) == 0 {
			return report, err
		}
		return r.write()
	})
}

// Verify reads a whole store, as Open and Repair do, and reports the parts that cannot be
// read. It writes nothing. Damage is in the Report and is not an error. Verify returns an
// error if it cannot read at all, such as [ErrInUse] or [ErrFormat].
//
// The store must not be open. To check a store that is open, use [Store.Backup], which reads
// every record.
func Verify(dir string, o *Options) (Report, error) {
	return onClosed(dir, o, func(options Options) (Report, error) {
		_, report, err := verify(dir, options)
		return report, err
	})
}

// onClosed runs fn while nobody else can use the store.
func onClosed(dir string, o *Options, fn func(Options) (Report, error)) (_ Report, err error) {
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
	return fn(options)
}

// verify reads a store as Open does, and if that fails all that can be read.
func verify(dir string, options Options) (*repair, Report, error) {
	kept, since, err := check(dir, options)
	var damage *DamageError
	if err == nil || !errors.As(err, &damage) {
		return nil, Report{Kept: kept, Since: since}, err
	}
	r := &repair{dir: dir, options: options, newest: make(map[driver.ID]location)}
	if err := r.read(); err != nil {
		return nil, Report{}, err
	}
	if len(r.lost) == 0 { // every entry can be found, but not in the way of a reader
		r.lost = append(r.lost, damage)
	}
	return r, Report{Lost: r.lost, Kept: len(r.newest)}, nil
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
	now := newClock(&o, r.said, r.time).now()
	if since = r.memory.At(now); since.Equal(neverOpened) {
		since = now
	}
	return r.index.n, since, nil
}

type repair struct {
	dir     string
	options Options
	numbers []uint64
	files   []*file
	lost    []*DamageError
	said    state // the last one
	state   state // likewise, with the latest time and the highest token found
	last    uint64
	newest  map[driver.ID]location
}

type location struct {
	file *file
	seq  uint64
}

// observe takes over what a state entry says. A later one replaces it, but time
// and token never fall.
func (r *repair) observe(st state) {
	r.said = st
	st.time, st.high = latest(st.time, r.state.time), max(st.high, r.state.high)
	r.state = st
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
		hash: hashID, commit: (*bolt.Tx).Commit, held: make(map[driver.ID]*standing),
		clock: newClock(&r.options, r.said, r.state.time), boot: r.state.high, high: r.state.high,
		id: r.state.id, last: r.last + 1, space: newSpace(r.dir, &r.options),
	}
	now := s.clock.now()
	s.memory = horizon.New(s.clock.latest())
	s.memory.TTL = r.state.memory.TTL
	if s.id == (storeID{}) {
		if _, err := rand.Read(s.id[:]); err != nil {
			return Report{}, fmt.Errorf("boltstore: %w", err)
		}
	}
	st := state{id: s.id, file: r.numbers[len(r.numbers)-1] + 1, time: now, memory: s.memory, high: s.high, up: s.clock.uptime()}
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
	report = Report{Lost: r.lost, Since: s.memory.Since}
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
func (s *Store) copyFrom(files []*file, newest map[driver.ID]location) (n, unnamed int, err error) {
	b := s.newBatch()
	defer b.end()
	for _, f := range files {
		_, err := f.salvage(func(seq uint64, at item) error {
			_, e, err := f.decode(seq, at.value)
			if err != nil || newest[e.id] != (location{f, seq}) || !e.record.Expires.After(b.now) {
				return nil // reported before, or not to be kept
			}
			e.record.Result, e.record.Note = bytes.Clone(e.record.Result), bytes.Clone(e.record.Note)
			b.add(e.id, standing{record: e.record, seq: seq}, nil).rewrite()
			n++
			if e.record.First.Source == lostSource {
				unnamed++
			}
			if !b.enough() {
				return nil
			}
			err = b.write()
			b.end()
			b = s.newBatch()
			return err
		}, func(*DamageError) {})
		if err != nil {
			return n, unnamed, err
		}
	}
	return n, unnamed, b.write()
}
