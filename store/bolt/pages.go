package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// bbolt follows whatever a page says: damage can send it round in circles, outside
// the file, or after more memory than there is, in part on goroutines of its own,
// where nobody can recover from a panic. So the pages are checked before bbolt has
// them.
//
// Layout: see bbolt's internal/common/page.go. A page starts with its number, what
// it is, how many elements it has, and how many pages longer it is than one; then
// come the elements, each of which says how far behind itself its key is.
const (
	pageHeaderLen = 16
	elementLen    = 16
	branchPage    = 1
	leafPage      = 2
	bucketElement = 1 // flag of a leaf's element whose value is a bucket
	bucketLen     = 16
	metaMagic     = 0xED0CDAED
)

var errPage = errors.New("damaged page")

// pages is a walk over the pages of one file.
type pages struct {
	file *os.File
	path string
	size int64  // of a page
	end  uint64 // the number after the last page
	seen []bool
	leaf []byte // the one that is being checked
}

// checkPages checks all pages that can be reached, and returns a DamageError for
// the first that is not as bbolt would have written it. What bbolt itself finds
// when it opens a file, it leaves to that.
func checkPages(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer file.Close()
	var head [pageHeaderLen + metaLen]byte
	if _, err := file.ReadAt(head[:], 0); err != nil || binary.NativeEndian.Uint32(head[metaOffset:]) != metaMagic {
		return nil
	}
	w := pages{file: file, path: path, size: int64(binary.NativeEndian.Uint32(head[metaOffset+8:]))}
	info, err := file.Stat()
	if err != nil || w.size < 512 || w.size > 64<<10 {
		return nil
	}
	if _, err := lastTx(path, int(w.size)); err != nil {
		return nil
	}
	meta := head
	if _, err := file.ReadAt(head[:], w.size); err == nil && txidOf(&head) > txidOf(&meta) {
		meta = head
	}
	w.end = min(binary.NativeEndian.Uint64(meta[metaOffset+40:]), uint64((info.Size()+w.size-1)/w.size))
	w.seen, w.leaf = make([]bool, w.end), make([]byte, w.size)
	return w.check(binary.NativeEndian.Uint64(meta[metaOffset+16:]), nil, nil, true)
}

func txidOf(meta *[pageHeaderLen + metaLen]byte) uint64 {
	return binary.NativeEndian.Uint64(meta[metaOffset+48:])
}

// check checks the page and those below it: their keys go from low up to high, or
// without a limit that is nil. Only the top bucket has buckets in it.
func (w *pages) check(id uint64, low, high []byte, top bool) error {
	if id < 2 || id >= w.end {
		return w.damage(id, "it is outside the file")
	}
	page := w.leaf
	if _, err := w.file.ReadAt(page, int64(id)*w.size); err != nil {
		return w.unread(id, err)
	}
	kind, overflow := binary.NativeEndian.Uint16(page[8:]), uint64(binary.NativeEndian.Uint32(page[12:]))
	switch {
	case binary.NativeEndian.Uint64(page) != id:
		return w.damage(id, "it says that it is another page")
	case kind != branchPage && kind != leafPage:
		return w.damage(id, "it is of an unknown kind")
	case overflow >= w.end-id:
		return w.damage(id, "it is longer than the file")
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i] {
			return w.damage(i, "two ways lead to it")
		}
		w.seen[i] = true
	}
	if overflow > 0 || kind == branchPage || top { // longer, or kept while those below are checked
		page = make([]byte, (int64(overflow)+1)*w.size)
		if _, err := w.file.ReadAt(page, int64(id)*w.size); err != nil {
			return w.unread(id, err)
		}
	}
	return w.elements(id, page, low, high, top)
}

// elements checks the elements of the page that is in b.
func (w *pages) elements(id uint64, b, low, high []byte, top bool) error {
	count := int(binary.NativeEndian.Uint16(b[10:]))
	if pageHeaderLen+count*elementLen > len(b) {
		return w.damage(id, "it says that it has more elements than fit")
	}
	branch := binary.NativeEndian.Uint16(b[8:]) == branchPage
	if count == 0 && (branch || low != nil) { // only a bucket can be empty
		return w.damage(id, "it has no elements")
	}
	for i := range count {
		key, value, ok := element(b, i, branch)
		switch {
		case !ok:
			return w.damage(id, "an element is outside of it")
		case len(key) == 0:
			return w.damage(id, "a key is empty") // bbolt would find it when it writes
		case i == 0 && bytes.Compare(key, low) < 0, i > 0 && bytes.Compare(key, low) <= 0, high != nil && bytes.Compare(key, high) >= 0:
			return w.damage(id, "its keys are out of order")
		}
		low = key
		var err error
		switch at := b[pageHeaderLen+i*elementLen:]; {
		case branch:
			until := high
			if i+1 < count {
				until, _, _ = element(b, i+1, branch)
			}
			err = w.check(binary.NativeEndian.Uint64(at[8:]), key, until, top)
		case binary.NativeEndian.Uint32(at) != 0:
			err = w.bucket(id, value, top && binary.NativeEndian.Uint32(at) == bucketElement)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// element returns the key of the i-th element of a page, and the value if it is a
// leaf. ok tells whether they are in the page.
func element(b []byte, i int, branch bool) (key, value []byte, ok bool) {
	start := pageHeaderLen + i*elementLen
	at := b[start : start+elementLen]
	if !branch {
		at = at[4:]
	}
	from := uint64(start) + uint64(binary.NativeEndian.Uint32(at))
	middle := from + uint64(binary.NativeEndian.Uint32(at[4:]))
	end := middle
	if !branch {
		end += uint64(binary.NativeEndian.Uint32(at[8:]))
	}
	if end > uint64(len(b)) {
		return nil, nil, false
	}
	return b[from:middle], b[middle:end], true
}

// bucket checks a bucket that is a value in the page id: a small one is a page
// within it.
func (w *pages) bucket(id uint64, b []byte, ok bool) error {
	if !ok || len(b) < bucketLen {
		return w.damage(id, "it has a bucket that is none")
	}
	if root := binary.NativeEndian.Uint64(b); root != 0 {
		return w.check(root, nil, nil, false)
	}
	b = b[bucketLen:]
	if len(b) < pageHeaderLen || binary.NativeEndian.Uint16(b[8:]) != leafPage {
		return w.damage(id, "it has a bucket that is none")
	}
	return w.elements(id, bytes.Clone(b), nil, nil, false)
}

func (w *pages) damage(id uint64, what string) error {
	return &DamageError{File: w.path, Offset: int64(min(id, w.end)) * w.size, Cause: fmt.Errorf("%w %d: %s", errPage, id, what)}
}

func (w *pages) unread(id uint64, err error) error {
	if errors.Is(err, io.EOF) {
		return w.damage(id, "the file ends in it")
	}
	return w.damage(id, err.Error())
}
