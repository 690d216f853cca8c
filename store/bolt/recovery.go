package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// recovery reads all files, oldest first, and makes of the store in memory what
// it was. It writes nothing.
type recovery struct {
	*Store
	unfinished []string  // names of files that never got theirs
	said       state     // the last one
	time       time.Time // the latest found
}

func (r *recovery) run() (err error) {
	numbers, unfinished, err := listFiles(r.dir)
	if err != nil {
		return fmt.Errorf("boltstore: %w", err)
	}
	r.unfinished = unfinished
	for i, n := range numbers {
		if err := checkPages(filepath.Join(r.dir, fileName(n))); err != nil {
			return err
		}
		f, st, err := openFile(r.dir, n, &r.options)
		if err != nil {
			return err
		}
		r.files = append(r.files, f)
		if _, err := lastTx(f.path, f.db.Info().PageSize); err != nil {
			return f.damage(0, nil, err)
		}
		if i == 0 {
			r.id, r.last = st.id, f.first-1
		}
		switch {
		case st.id != r.id:
			return f.damage(f.first, nil, errors.New("the file is of another store"))
		case f.first != r.last+1:
			return f.damage(f.first, nil, fmt.Errorf("the files with the entries from %d on are missing", r.last+1))
		}
		r.last, err = f.scan(func(seq uint64, k kind, body []byte) error {
			step, err := r.replay(f, seq, k, body)
			f.steps = append(f.steps, step)
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, f := range r.files {
		f.steps = nil
	}
	return nil
}

// replay does to the store in memory what an entry says. For a record it returns
// the step in which that expires.
func (r *recovery) replay(f *file, seq uint64, k kind, body []byte) (step uint32, err error) {
	switch k {
	case kindState:
		st, err := decodeState(body)
		if err == nil {
			r.said = st
			r.memory, r.high = st.memory, max(r.high, st.high)
			r.time = latest(r.time, st.time)
		}
		return 0, err
	case kindSource:
		n, source, err := decodeSource(body)
		if err == nil && n != f.nextSource() {
			err = errBody
		}
		if err == nil {
			f.addSource(n, source)
		}
		return 0, err
	}
	e, err := decodeEntry(k, body, f.base, *f.sources.Load(), seq)
	if err != nil {
		return 0, err
	}
	r.time = latest(r.time, e.written)
	r.high = max(r.high, e.record.Token)
	replaced := false
	if k == kindForgotten {
		replaced = r.index.remove(r.hash(e.id), e.prev)
	} else {
		replaced = r.index.put(r.hash(e.id), e.prev, seq)
		step = f.expiries.stepOf(e.record.Expires)
		f.expiries.add(step)
	}
	if replaced {
		old := r.fileOf(e.prev)
		old.expiries.replaced(old.steps[e.prev-old.first])
	}
	return step, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
