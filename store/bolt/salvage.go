package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

const (
	// An entry takes no fewer bytes in a file.
	minEntry = headLen + crcLen
	// lostSource is the source of records whose own is lost.
	lostSource = "?"
)

// lostSources are the sources of a file before any name in it was read.
var lostSources = slices.Repeat([]string{lostSource}, maxSources)

// read finds the newest readable record of each key, and what cannot be read.
func (r *repair) read() (err error) {
	if r.numbers, _, err = listFiles(r.dir); err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	for _, n := range r.numbers {
		path := filepath.Join(r.dir, fileName(n))
		f := newFile(n, 0, time.Time{}, r.options.RollAge, path, nil, nil)
		st, err := readHead(f)
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
				return fmt.Errorf("boltstore: %s: the file is of another store: move it away", f.path)
			}
			if f.first > r.last+1 {
				r.lose(&DamageError{File: f.path, Sequence: r.last + 1, Last: f.first - 1, Offset: -1, Cause: errors.New("the files before are missing")})
			}
		}
		r.files = append(r.files, f)
		r.observe(st)
		f.sources.Store(&lostSources)
		if r.last, err = f.salvage(func(seq uint64, e item) error { return r.take(f, seq, e) }, r.lose); err != nil {
			return err
		}
	}
	return nil
}

// readHead reads the first entry of a file, or the copy of it.
func readHead(f *file) (st state, err error) {
	first := errors.New("its first entry, which the times of all others are relative to, cannot be read")
	p, err := openTree(f.path, func(int64, error) {})
	if err != nil {
		return state{}, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	for _, bucket := range [][]byte{headName, bucketName} {
		n := 0
		whole := true
		p.bad = func(int64, error) { whole = whole && n > 0 }
		_, err := p.each(bucket, func(e item) {
			if n++; n > 1 || len(e.key) != 8 || !whole {
				return
			}
			k, body, err := unseal(e.value, seqOf(e.key))
			if err == nil && k == kindState {
				st, err = decodeState(body)
			}
			switch {
			case errors.Is(err, ErrFormat):
				first = err
			case err == nil && st.file == f.number:
				f.first = seqOf(e.key)
				f.base, f.expiries.base = st.time, st.time
			}
		})
		if f.first > 0 {
			return st, nil
		}
		if err != nil {
			continue // it has no such bucket
		}
	}
	return state{}, f.damage(0, nil, first)
}

// salvage calls fn for the entries of the file that can be found, in order, and
// missing for those that cannot. It returns the last sequence number.
func (f *file) salvage(fn func(seq uint64, e item) error, missing func(*DamageError)) (last uint64, err error) {
	var page *DamageError // that could not be read, and whose entries did not show yet
	p, err := openTree(f.path, func(offset int64, cause error) {
		if page == nil {
			page = &DamageError{File: f.path, Offset: offset, Cause: cause}
		}
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if p.damaged {
		missing(&DamageError{File: f.path, Offset: -1, Cause: errMeta})
	}
	gap := func(first, last uint64) {
		d := page
		if d == nil {
			d = &DamageError{File: f.path, Offset: -1, Cause: errors.New("the entry is missing")}
		}
		d.Sequence, d.Last, page = first, last, nil
		missing(d)
	}
	next := f.first
	var failed error
	// take takes over an entry, and says whether it is whole. Where it stands may say
	// that it has the number seq, or not: its checksum does.
	take := func(seq uint64, e item, certain bool) bool {
		if failed != nil || seq < next {
			return certain
		}
		_, _, err := unseal(e.value, seq)
		whole := err == nil || errors.Is(err, ErrFormat)
		if !whole && (seq > next || !certain) {
			return false
		}
		if seq > next {
			gap(next, seq-1)
		}
		next = seq + 1
		failed = fn(seq, e)
		return whole
	}
	sequence, err := p.each(bucketName, func(e item) {
		if len(e.key) != 8 {
			return
		}
		seq, certain := seqOf(e.key), true
		for at, b := range entries(e.value) { // behind a damaged one it is guesswork
			certain = take(seq, item{value: b, offset: e.offset + int64(at)}, certain)
			seq++
		}
	})
	if failed != nil {
		return 0, failed
	}
	if err != nil {
		missing(&DamageError{File: f.path, Offset: -1, Cause: err})
	}
	// Damage can make it any number.
	if sequence >= next && sequence <= f.first+uint64(p.size)/minEntry {
		gap(next, sequence)
		next = sequence + 1
	} else if page != nil {
		missing(page)
	}
	return next - 1, nil
}

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
func (r *repair) take(f *file, seq uint64, e item) error {
	err := r.replay(f, seq, e.value)
	if errors.Is(err, ErrFormat) {
		return f.damage(seq, nil, err)
	}
	if err != nil {
		r.lose(&DamageError{File: f.path, Sequence: seq, Last: seq, Offset: e.offset, Cause: err})
	}
	return nil
}
