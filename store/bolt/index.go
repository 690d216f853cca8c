package boltstore

import (
	"encoding/binary"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// index says where the newest record of each key is: hash of the ID -> sequence
// number. It does not hold the ID, so keys with equal hashes have an entry each,
// and who looks one up compares the ID in the record.
//
// It is many small hash tables, each of which grows for itself: no insertion
// pays for more than a small part of the index.
type index struct {
	shards [indexShards]shard
	n      int
}

const (
	shardBits   = 10
	indexShards = 1 << shardBits
	minSlots    = 8
)

// slot is empty if seq is 0.
type slot struct{ hash, seq uint64 }

// shard is an open-addressing table with linear probing. Its length is 0 or a
// power of two, and it is at most 13/16 full.
type shard struct {
	slots []slot
	n     int
}

// hashID takes the hash from the ID, which is one itself.
func hashID(id driver.ID) uint64 { return binary.LittleEndian.Uint64(id[:]) }

// of returns the shard of hash: its upper bits choose it, the lower ones the
// slot within.
func (x *index) of(hash uint64) *shard { return &x.shards[hash>>(64-shardBits)] }

// may tells with one look whether there can be an entry under hash.
func (x *index) may(hash uint64) bool {
	t := x.of(hash)
	return len(t.slots) > 0 && t.slots[int(hash)&(len(t.slots)-1)].seq != 0
}

// find appends to dst the sequence numbers under hash, the greatest first.
func (x *index) find(dst []uint64, hash uint64) []uint64 {
	t := x.of(hash)
	start := len(dst)
	for i := range t.probe(hash) {
		if t.slots[i].hash != hash {
			continue
		}
		dst = append(dst, t.slots[i].seq)
		for j := len(dst) - 1; j > start && dst[j] > dst[j-1]; j-- {
			dst[j], dst[j-1] = dst[j-1], dst[j]
		}
	}
	return dst
}

// has reports whether there is an entry (hash, seq).
func (x *index) has(hash, seq uint64) bool {
	_, ok := x.of(hash).at(hash, seq)
	return ok
}

// put moves the entry (hash, prev) to seq, and reports that it did, or adds one
// if there is none.
func (x *index) put(hash, prev, seq uint64) bool {
	t := x.of(hash)
	if prev != 0 {
		if i, ok := t.at(hash, prev); ok {
			t.slots[i].seq = seq
			return true
		}
	}
	if len(t.slots)*13 <= t.n*16 {
		t.resize(max(minSlots, 2*len(t.slots)))
	}
	t.add(slot{hash, seq})
	t.n++
	x.n++
	return false
}

// remove removes the entry (hash, seq), and reports whether there was one.
func (x *index) remove(hash, seq uint64) bool {
	t := x.of(hash)
	i, ok := t.at(hash, seq)
	if !ok {
		return false
	}
	t.cut(i)
	t.n--
	x.n--
	if len(t.slots) > minSlots && t.n*8 < len(t.slots) {
		t.resize(len(t.slots) / 2)
	}
	return true
}

// probe yields the slots in which an entry of hash can be.
func (t *shard) probe(hash uint64) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		mask := len(t.slots) - 1
		if mask < 0 {
			return
		}
		for i := int(hash) & mask; t.slots[i].seq != 0; i = (i + 1) & mask {
			if !yield(i) {
				return
			}
		}
	}
}

func (t *shard) at(hash, seq uint64) (int, bool) {
	for i := range t.probe(hash) {
		if t.slots[i] == (slot{hash, seq}) {
			return i, true
		}
	}
	return 0, false
}

func (t *shard) add(s slot) {
	mask := len(t.slots) - 1
	i := int(s.hash) & mask
	for t.slots[i].seq != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// cut empties slot i and moves up the entries behind it that would otherwise
// not be found any more.
func (t *shard) cut(i int) {
	mask := len(t.slots) - 1
	for j := (i + 1) & mask; t.slots[j].seq != 0; j = (j + 1) & mask {
		home := int(t.slots[j].hash) & mask
		if (j-home)&mask >= (j-i)&mask {
			t.slots[i] = t.slots[j]
			i = j
		}
	}
	t.slots[i] = slot{}
}

func (t *shard) resize(n int) {
	old := t.slots
	t.slots = make([]slot, n)
	for _, s := range old {
		if s.seq != 0 {
			t.add(s)
		}
	}
}
