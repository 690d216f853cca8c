package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

var (
	bucketName = []byte("log")
	// headName is a bucket with a copy of the first entry, on another page: what
	// the times and tokens in a file are relative to must not be lost with one page.
	headName = []byte("head")
)

const (
	tmpSuffix = ".tmp"
	// Another program that looks into a file while we open it gets this long.
	openTimeout = time.Second
	// More sources than this in one file are not the names of topics; they are
	// spelled out in each record instead of being kept in memory.
	maxSources = 1024
)

// file is one file of the log. All but the newest are never written again.
type file struct {
	number uint64
	path   string
	db     *bolt.DB
	handle *os.File  // the one that db has open
	metas  int64     // size of its meta pages
	first  uint64    // sequence number of the first entry
	base   time.Time // what the times in the file are relative to: its creation

	// Sources by number - 1. A reader of a record finds its source in here,
	// because it was added before the record was committed.
	sources atomic.Pointer[[]string]

	numbers  map[string]uint64 // source -> number; for the writer alone
	expiries expiries          // under the store's mu
	// While the store is being opened, when each record expires, in steps, by its
	// place in the file: a record says which one it replaces, and not when that
	// would have expired.
	steps []uint32

	size      atomic.Int64 // bytes in use
	allocated atomic.Int64 // offset up to which the disk's room is the file's; see space
	refs      atomic.Int64 // the store's own, and one for each view
}

func newFile(number, first uint64, base time.Time, step time.Duration, path string, db *bolt.DB, handle *os.File) *file {
	f := &file{
		number: number, path: path, db: db, handle: handle, first: first, base: base,
		numbers:  make(map[string]uint64),
		expiries: expiries{base: base, step: step, counts: make(map[uint32]int)},
	}
	if db != nil { // else it is read without bbolt
		f.metas = 2 * int64(db.Info().PageSize)
	}
	f.sources.Store(new([]string))
	f.refs.Store(1)
	return f
}

// release gives up one reference. The last one closes the file.
func (f *file) release() error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	return f.db.Close()
}

// nextSource returns the number that the next new source gets; 0: none.
func (f *file) nextSource() uint64 {
	n := uint64(len(*f.sources.Load())) + 1
	if n > maxSources {
		return 0
	}
	return n
}

// forgetSources takes back all sources but those that were known before: their
// names were not written.
func (f *file) forgetSources(known *[]string) {
	for _, source := range (*f.sources.Load())[len(*known):] {
		delete(f.numbers, source)
	}
	f.sources.Store(known)
}

// addSource gives a source its number. Numbers that were skipped have none.
func (f *file) addSource(n uint64, source string) {
	old := *f.sources.Load()
	sources := make([]string, max(n, uint64(len(old))))
	copy(sources, old)
	sources[n-1] = source
	f.sources.Store(&sources)
	f.numbers[source] = n
}

// decode reads the entry b that has the sequence number seq. The Result aliases b.
func (f *file) decode(seq uint64, b []byte) (kind, entry, error) {
	k, body, err := unseal(b, seq)
	if err != nil {
		return 0, entry{}, err
	}
	if k == kindState || k == kindSource {
		return k, entry{}, nil
	}
	e, err := decodeEntry(k, body, f.base, *f.sources.Load(), seq)
	return k, e, err
}

// damage makes the error for an entry of the file that cannot be read; b, if it is
// known, is where bbolt has it.
func (f *file) damage(seq uint64, b []byte, cause error) error {
	if errors.Is(cause, ErrFormat) {
		return fmt.Errorf("boltstore: %s: %w", f.path, cause)
	}
	return &DamageError{File: f.path, Sequence: seq, Last: seq, Offset: f.offset(b), Cause: cause}
}

// offset returns where in the file b is, or -1. The mapping tells, except for the
// first few entries of a file, of which bbolt may return a copy.
func (f *file) offset(b []byte) int64 {
	info, err := os.Stat(f.path)
	if err != nil || len(b) == 0 {
		return -1
	}
	offset := int64(uintptr(unsafe.Pointer(unsafe.SliceData(b))) - f.db.Info().Data)
	if offset < 0 || offset >= info.Size() {
		return -1
	}
	return offset
}

// pageError is a panic on a damaged page. What the runtime says of it, such as an
// index that is out of range, tells a user nothing.
type pageError struct{ error }

func (pageError) Error() string   { return "damaged page" }
func (e pageError) Unwrap() error { return e.error }

// guarded runs fn and makes an error of what bbolt does on a damaged page: it
// panics, or reads outside the file.
func guarded(fn func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged page: %v", r)
			if fault, ok := r.(runtime.Error); ok {
				err = pageError{fault}
			}
		}
	}()
	return fn()
}

func fileName(number uint64) string { return fmt.Sprintf("log-%06d.db", number) }

// listFiles returns the numbers of the files in dir, in order, and the names of
// those that were never finished.
func listFiles(dir string) (numbers []uint64, unfinished []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		digits, ok := strings.CutPrefix(name, "log-")
		if !ok {
			continue
		}
		if strings.HasSuffix(digits, ".db"+tmpSuffix) {
			unfinished = append(unfinished, name)
			continue
		}
		digits = strings.TrimSuffix(digits, ".db")
		if n, err := strconv.ParseUint(digits, 10, 64); err == nil && fileName(n) == name {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, unfinished, nil
}

// openDB opens one bbolt file that exists, and says what is wrong with it.
func openDB(path string, readOnly bool, mapBytes int64) (*bolt.DB, *os.File, error) {
	db, handle, err := openBolt(path, readOnly, mapBytes)
	var system *fs.PathError
	switch {
	case err == nil:
		return db, handle, nil
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("boltstore: %s: %w by another program: close it there", path, ErrInUse)
	case errors.As(err, &system):
		return nil, nil, fmt.Errorf("boltstore: %w: let this user read and write it, and look to its disk", err)
	}
	return nil, nil, &DamageError{File: path, Offset: -1, Cause: err}
}

// openBolt opens or creates one bbolt file. Of a file that is only read nothing
// is written, and bbolt does not walk its pages in a goroutine of its own, in
// which a panic could not be recovered.
func openBolt(path string, readOnly bool, mapBytes int64) (db *bolt.DB, handle *os.File, err error) {
	err = guarded(func() (err error) {
		db, err = bolt.Open(path, 0o600, &bolt.Options{
			Timeout:         openTimeout,
			NoFreelistSync:  true,
			FreelistType:    bolt.FreelistMapType,
			ReadOnly:        readOnly,
			InitialMmapSize: int(mapBytes), // growing it would make the writer wait for readers
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				handle = f
				return f, err
			},
		})
		return err
	})
	if err != nil && handle != nil {
		_ = handle.Close() // it is open still if bbolt panicked
	}
	return db, handle, err
}

// openFile opens a file to be read, and reads its first entry.
func openFile(dir string, number uint64, o *Options) (*file, state, error) {
	path := filepath.Join(dir, fileName(number))
	info, err := os.Stat(path)
	if err != nil {
		return nil, state{}, fmt.Errorf("boltstore: %w", err)
	}
	if info.Size() == 0 {
		// bbolt would take it for a new one.
		return nil, state{}, &DamageError{File: path, Offset: -1, Cause: errors.New("the file is empty")}
	}
	db, handle, err := openDB(path, true, 0)
	if err != nil {
		return nil, state{}, err
	}
	f := newFile(number, 0, time.Time{}, o.RollAge, path, db, handle)
	st, err := f.readState()
	if err != nil {
		return nil, state{}, errors.Join(err, db.Close())
	}
	return f, st, nil
}

// readState reads the first entry, which everything else in the file depends on.
func (f *file) readState() (st state, err error) {
	err = f.read(func(tx *bolt.Tx, b *bolt.Bucket) error {
		f.size.Store(tx.Size())
		key, value := b.Cursor().First()
		if len(key) != 8 {
			return f.damage(0, nil, errors.New("it has no first entry"))
		}
		f.first = seqOf(key)
		k, body, err := unseal(value, f.first)
		if err == nil && k != kindState {
			err = errBody
		}
		if err == nil {
			st, err = decodeState(body)
		}
		if err == nil && st.file != f.number {
			err = fmt.Errorf("it says that it is file %d", st.file)
		}
		if err != nil {
			return f.damage(f.first, value, err)
		}
		f.base, f.expiries.base = st.time, st.time
		return nil
	})
	return st, err
}

// begin starts a transaction. Its caller is guarded.
func (f *file) begin(writable bool) (*bolt.Tx, error) {
	if err := f.uncut(); err != nil {
		return nil, err
	}
	return f.db.Begin(writable)
}

// uncut returns an error if the file has no meta pages any more. bbolt reads them
// with its locks held, and would never give those up.
func (f *file) uncut() error {
	info, err := f.handle.Stat()
	if err == nil && info.Size() < f.metas {
		err = errors.New("the file was cut off")
	}
	return err
}

// read runs fn in a transaction.
func (f *file) read(fn func(*bolt.Tx, *bolt.Bucket) error) error {
	var own error // of fn: it says where already
	err := guarded(func() error {
		if err := f.uncut(); err != nil {
			return err
		}
		return f.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			if b == nil {
				return errors.New("it has no log")
			}
			own = fn(tx, b)
			return nil
		})
	})
	if err != nil {
		return f.damage(0, nil, err)
	}
	return own
}

// scan calls fn for each entry of the file, in order, and returns the last
// sequence number. It finds every damage: an entry that is missing leaves a gap,
// and the file says which is its last.
func (f *file) scan(fn func(seq uint64, k kind, body []byte) error) (last uint64, err error) {
	last = f.first - 1
	err = f.read(func(_ *bolt.Tx, b *bolt.Bucket) error {
		c := b.Cursor()
		page, before := uintptr(0), uint64(0)
		for key, value := c.First(); key != nil; key, value = c.Next() {
			first := last + 1
			if len(key) != 8 || seqOf(key) != first {
				return f.damage(first, nil, errors.New("the entry is missing"))
			}
			for _, e := range entries(value) {
				k, body, err := unseal(e, last+1)
				if err == nil {
					err = fn(last+1, k, body)
				}
				if err != nil {
					return f.damage(last+1, e, err)
				}
				last++
			}
			if err := checkPack(value, first); err != nil {
				return f.damage(first, value, err)
			}
			// A reader finds an entry by the first keys of pages, which are written
			// apart from those: wrong ones show at the edges of a page.
			if p := pageOf(value); p != page {
				page = p
				if (before != 0 && !found(b, before)) || !found(b, first) {
					return f.damage(first, value, errors.New("the way to the entry is lost"))
				}
			}
			before = first
		}
		if want := b.Sequence(); last != want {
			return f.damage(last+1, nil, fmt.Errorf("the entries up to %d are missing", want))
		}
		if !found(b, before) {
			return f.damage(before, nil, errors.New("the way to the entry is lost"))
		}
		return nil
	})
	var damage *DamageError
	if errors.As(err, &damage) && damage.Sequence == 0 {
		damage.Sequence, damage.Last = last+1, last+1
	}
	return last, err
}

// found says whether a reader finds the value under seq.
func found(b *bolt.Bucket, seq uint64) bool {
	key := keyOf(seq)
	return b.Get(key[:]) != nil
}

// pageOf tells the memory page of one value from that of another.
func pageOf(value []byte) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(value))) / uintptr(os.Getpagesize())
}

func seqOf(key []byte) uint64 { return binary.BigEndian.Uint64(key) }

// createFile makes a file whose first entry is st under first. It gets its name
// only when that is on disk, so a file with a name has a first entry.
func createFile(p *space, first uint64, st *state, o *Options) (*file, error) {
	path := filepath.Join(p.dir, fileName(st.file))
	tmp := path + tmpSuffix
	if free, err := p.free(p.dir); err == nil && free < p.newFileRoom() {
		return nil, p.full(p.newFileRoom(), nil)
	}
	fail := func(err error) (*file, error) {
		if noSpace(err) {
			return nil, p.full(p.newFileRoom(), err)
		}
		return nil, fmt.Errorf("boltstore: create %s: %w: let this user write to the directory, and look to its disk", path, err)
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	db, handle, err := openBolt(tmp, false, o.RollBytes)
	if err != nil {
		_ = os.Remove(tmp)
		return fail(err)
	}
	f := newFile(st.file, first, st.time, o.RollAge, path, db, handle)
	if err = p.secure(f, p.newFileRoom(), false); err == nil {
		err = guarded(func() error {
			return db.Update(func(tx *bolt.Tx) error {
				b, err := tx.CreateBucket(bucketName)
				if err != nil {
					return err
				}
				head, err := tx.CreateBucket(headName)
				if err != nil {
					return err
				}
				entry := []value{{first, appendState(nil, first, st)}}
				return errors.Join(put(head, entry, first), put(b, entry, first))
			})
		})
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(p.dir)
	}
	if err != nil {
		_ = db.Close()
		_ = os.Remove(tmp)
		_ = os.Remove(path) // if only its directory could not be synced: nothing goes on from it
		return fail(err)
	}
	return f, nil
}

// put appends values, the last entry of which has the sequence number last.
func put(b *bolt.Bucket, values []value, last uint64) error {
	b.FillPercent = 1 // nothing will be put between
	var key [8]byte   // which Put copies
	for _, v := range values {
		key = keyOf(v.seq)
		if err := b.Put(key[:], v.bytes); err != nil {
			return err
		}
	}
	return b.SetSequence(last)
}

// syncDir makes the creation or removal of a file in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
