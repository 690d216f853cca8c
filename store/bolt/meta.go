package boltstore

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
)

// bbolt has two meta pages and writes them in turns. If one is damaged it goes
// on with the other, and the last transaction is silently gone. A meta fits in
// a disk sector, so it is not torn by a crash: a bad one is damage.
//
// Layout: see bbolt's internal/common/meta.go. Behind the page header of 16
// bytes there are 64, of which the last 8 are the FNV-1a of those before. All but
// the size of a page take 8 bytes.
const (
	metaOffset   = 16
	metaLen      = 64
	metaPageSize = 8  // 4 bytes
	metaRoot     = 16 // of the tree of buckets
	metaPages    = 40 // how many are in use
	metaTx       = 48
	metaSum      = 56
)

var errMeta = errors.New("a meta page is damaged, the last transaction may be missing")

func metaWhole(meta [metaLen]byte) bool {
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaSum])
	return sum.Sum64() == binary.NativeEndian.Uint64(meta[metaSum:])
}

func txOf(meta [metaLen]byte) uint64 { return binary.NativeEndian.Uint64(meta[metaTx:]) }

// lastTx returns the number of the last transaction of the file; errMeta unless
// both meta pages are whole.
func lastTx(path string, pageSize int) (last uint64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for page := range int64(2) {
		var meta [metaLen]byte
		if _, err := f.ReadAt(meta[:], page*int64(pageSize)+metaOffset); err != nil {
			return 0, err
		}
		if !metaWhole(meta) {
			return 0, errMeta
		}
		last = max(last, txOf(meta))
	}
	return last, nil
}
