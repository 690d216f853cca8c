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
// bytes there are 64, of which the last 8 are the FNV-1a of those before.
const (
	metaOffset = 16
	metaLen    = 64
)

var errMeta = errors.New("a meta page is damaged, the last transaction may be missing")

// checkMetas returns errMeta unless both meta pages of the file are whole.
func checkMetas(path string, pageSize int) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for page := range int64(2) {
		var meta [metaLen]byte
		if _, err := f.ReadAt(meta[:], page*int64(pageSize)+metaOffset); err != nil {
			return err
		}
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:metaLen-8])
		if sum.Sum64() != binary.NativeEndian.Uint64(meta[metaLen-8:]) {
			return errMeta
		}
	}
	return nil
}
