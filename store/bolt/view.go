package boltstore

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"
)

// view reads records, in one transaction for each file. It is for one goroutine
// and a short time: bbolt's writer waits for readers when a file outgrows its
// mapping, so whoever is about to write closes the view first. The files it has
// pinned are not closed before it is, even if they are dropped from the log.
type view struct {
	files []fileView

	// Scratch.
	seqs []uint64
	key  [8]byte
}

type fileView struct {
	file   *file
	tx     *bolt.Tx // nil: not begun
	cursor *bolt.Cursor
}

// pin keeps f open. Its caller holds the store's mu, so that f is not dropped
// just then.
func (v *view) pin(f *file) {
	for i := range v.files {
		if v.files[i].file == f {
			return
		}
	}
	f.refs.Add(1)
	v.files = append(v.files, fileView{file: f})
}

// get reads the record under seq, which is in a pinned file. The record owns its
// Result and its Note.
func (v *view) get(seq uint64) (entry, error) {
	var fv *fileView
	for i := range v.files {
		// Files are pinned in any order; seq is in the one that starts last before it.
		if f := &v.files[i]; f.file.first <= seq && (fv == nil || fv.file.first < f.file.first) {
			fv = f
		}
	}
	var e entry
	var b []byte
	err := guarded(func() (err error) {
		if fv.tx == nil {
			if fv.tx, err = fv.file.begin(false); err != nil {
				return err
			}
			fv.cursor = fv.tx.Bucket(bucketName).Cursor()
		}
		if b = v.find(fv.cursor, seq); b == nil {
			return errors.New("the entry is missing")
		}
		k, read, err := fv.file.decode(seq, b)
		if err == nil && k.state() == 0 {
			err = errBody // the index names records only
		}
		e = read
		e.record.Result, e.record.Note = bytes.Clone(e.record.Result), bytes.Clone(e.record.Note)
		return err
	})
	if err != nil {
		return entry{}, fv.file.damage(seq, b, err)
	}
	return e, nil
}

// find returns the entry with the sequence number seq, or nil: it is in the value
// under that number, or in the last one before.
func (v *view) find(c *bolt.Cursor, seq uint64) []byte {
	v.key = keyOf(seq)
	key, value := c.Seek(v.key[:])
	if key == nil || seqOf(key) > seq {
		key, value = c.Prev()
	}
	if key == nil || seqOf(key) > seq {
		return nil
	}
	return entryAt(value, seq-seqOf(key))
}

// rest ends the transactions and keeps the files pinned.
func (v *view) rest() {
	for i := range v.files {
		if f := &v.files[i]; f.tx != nil {
			_ = f.tx.Rollback() // of a reader: there is nothing to fail
			f.tx, f.cursor = nil, nil
		}
	}
}

// close ends the transactions and lets the files go. The view can be used again.
func (v *view) close() error {
	v.rest()
	var errs []error
	for i := range v.files {
		errs = append(errs, v.files[i].file.release())
	}
	clear(v.files)
	v.files = v.files[:0]
	return errors.Join(errs...)
}
