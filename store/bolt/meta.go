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
// bytes there are 64: the last 8 are the FNV-1a of those before, and the 8
// before these the number of the transaction.
const (
	metaOffset = 16
	metaLen    = 64
	metaSum    = metaLen - 8
	metaTx     = metaLen - 16
)

var errMeta = errors.New("a meta page is damaged, the last transaction may be missing")

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
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:metaSum])
		if sum.Sum64() != binary.NativeEndian.Uint64(meta[metaSum:]) {
			return 0, errMeta
		}
		last = max(last, binary.NativeEndian.Uint64(meta[metaTx:]))
	}
	return last, nil
}
