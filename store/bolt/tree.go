package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

const (
	minPageSize = 1 << 10
	maxPageSize = 64 << 10
)

// tree reads what stands in a damaged bbolt file, page by page and without bbolt,
// as far as it goes. See pages.go for the layout.
type tree struct {
	file     *os.File
	path     string
	size     int64
	pageSize int64
	meta     [metaLen]byte
	damaged  bool // one of the meta pages; the last transaction may be missing
	bad      func(offset int64, cause error)
	seen     map[uint64]bool
}

// item is a key and its value, and where in the file that is.
type item struct {
	flags      uint32
	key, value []byte
	offset     int64
}

// openTree finds the last transaction of a file. bad is told of pages that cannot
// be read.
func openTree(path string, bad func(offset int64, cause error)) (*tree, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("boltstore: %w: let this user read it", err)
	}
	p := &tree{file: file, path: path, bad: bad}
	info, err := file.Stat()
	if err == nil {
		p.size = info.Size()
		err = p.findMeta()
	}
	if err != nil {
		return nil, errors.Join(&DamageError{File: path, Offset: -1, Cause: err}, file.Close())
	}
	return p, nil
}

func (p *tree) close() error { return p.file.Close() }

// findMeta takes over the younger one of the two meta pages.
func (p *tree) findMeta() error {
	first, whole := p.readMeta(0)
	if whole {
		p.meta, p.pageSize = first, int64(binary.NativeEndian.Uint32(first[metaPageSize:]))
	}
	for size := int64(minPageSize); size <= maxPageSize; size *= 2 {
		second, ok := p.readMeta(size)
		if !ok || int64(binary.NativeEndian.Uint32(second[metaPageSize:])) != size {
			continue
		}
		if p.damaged = !whole; !whole || txOf(second) > txOf(first) {
			p.meta, p.pageSize = second, size
		}
		return nil
	}
	p.damaged = true
	if !whole || p.pageSize < minPageSize || p.pageSize > maxPageSize {
		return errors.New("both meta pages are damaged")
	}
	return nil
}

func (p *tree) readMeta(at int64) (meta [metaLen]byte, whole bool) {
	_, err := p.file.ReadAt(meta[:], at+metaOffset)
	return meta, err == nil && metaWhole(meta)
}

// bucket returns the root page and the sequence of a bucket, and the page itself
// if it stands in the value.
func (p *tree) bucket(name []byte) (root uint64, sequence uint64, inline *item, err error) {
	err = errors.New("it has no " + string(name))
	p.walk(binary.NativeEndian.Uint64(p.meta[metaRoot:]), func(e item) {
		if string(e.key) != string(name) || e.flags&bucketElement == 0 || len(e.value) < bucketLen {
			return
		}
		root, sequence, err = binary.NativeEndian.Uint64(e.value), binary.NativeEndian.Uint64(e.value[8:]), nil
		if root == 0 {
			inline = &item{value: e.value[bucketLen:], offset: e.offset + int64(bucketLen)}
		}
	})
	return root, sequence, inline, err
}

// each calls fn for the elements of a bucket, in order, as far as they can be
// read, and returns the bucket's sequence.
func (p *tree) each(name []byte, fn func(item)) (sequence uint64, err error) {
	root, sequence, inline, err := p.bucket(name)
	switch {
	case err != nil:
		return 0, &DamageError{File: p.path, Offset: -1, Cause: err}
	case inline != nil:
		p.leaf(inline.value, inline.offset, fn)
	default:
		p.walk(root, fn)
	}
	return sequence, nil
}

// walk calls fn for the elements of the leaves below a page.
func (p *tree) walk(root uint64, fn func(item)) {
	p.seen = make(map[uint64]bool)
	p.below(root, fn)
}

func (p *tree) below(id uint64, fn func(item)) {
	if p.seen[id] {
		p.bad(int64(id)*p.pageSize, errors.New("the page is part of a loop, or has two parents"))
		return
	}
	p.seen[id] = true
	page, err := p.read(id)
	switch {
	case err != nil:
		p.bad(int64(id)*p.pageSize, err)
	case page.flags&leafPage != 0:
		p.leaf(page.bytes, int64(id)*p.pageSize, fn)
	default:
		for i := range page.count {
			p.below(binary.NativeEndian.Uint64(page.bytes[pageHeaderLen+i*elementLen+8:]), fn)
		}
	}
}

// page is what stands in one, and in those that belong to it.
type page struct {
	flags uint16
	count int
	bytes []byte
}

// read reads a page, of which the elements of a branch are there.
func (p *tree) read(id uint64) (page, error) {
	header, err := p.header(id)
	if err != nil {
		return page{}, err
	}
	more := int64(binary.NativeEndian.Uint32(header[12:]))
	pg := page{flags: binary.NativeEndian.Uint16(header[8:]), count: int(binary.NativeEndian.Uint16(header[10:]))}
	at := int64(id) * p.pageSize
	if length := (more + 1) * p.pageSize; length <= p.size-at {
		pg.bytes = make([]byte, length)
		_, err = p.file.ReadAt(pg.bytes, at)
	} else {
		err = errPage
	}
	if err == nil && pageHeaderLen+pg.count*elementLen > len(pg.bytes) {
		err = errPage
	}
	return pg, err
}

// header reads that of a page, and checks that it is one of a tree.
func (p *tree) header(id uint64) (header [pageHeaderLen]byte, err error) {
	if id < 2 || id >= binary.NativeEndian.Uint64(p.meta[metaPages:]) || id > uint64(p.size/p.pageSize) {
		return header, errPage
	}
	if _, err := p.file.ReadAt(header[:], int64(id)*p.pageSize); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is cut off")
		}
		return header, err
	}
	flags := binary.NativeEndian.Uint16(header[8:])
	if binary.NativeEndian.Uint64(header[:]) != id || flags != branchPage && flags != leafPage {
		return header, errPage
	}
	return header, nil
}

// leaf calls fn for the elements of a leaf page that starts at offset.
func (p *tree) leaf(b []byte, offset int64, fn func(item)) {
	if len(b) < pageHeaderLen {
		p.bad(offset, errPage)
		return
	}
	for i := range int(binary.NativeEndian.Uint16(b[10:])) {
		start := pageHeaderLen + i*elementLen
		if start+elementLen > len(b) {
			p.bad(offset, errPage)
			return
		}
		key, value, ok := element(b, i, false)
		if !ok {
			p.bad(offset, errPage)
			continue
		}
		at := start + int(binary.NativeEndian.Uint32(b[start+4:])) + len(key)
		fn(item{flags: binary.NativeEndian.Uint32(b[start:]), key: key, value: value, offset: offset + int64(at)})
	}
}
