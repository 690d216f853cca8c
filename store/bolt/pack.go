package boltstore

import "iter"

// What is written together stands in packs: several entries are one value in
// bbolt, under the sequence number of the first, because most of what bbolt costs
// is by the value. A pack is
//
//	version  1 byte
//	entries  each after its length, 1 byte
//	CRC-32C  as that of an entry with the same sequence number
//
// An entry that is alone, or too long for a pack, is a value as it is.
const (
	packVersion = 2
	// Eight packs fill a page of 4 KiB.
	maxPack = (4096-pageHeaderLen)/8 - elementRoom
	// What the length of an entry in a pack can say.
	maxPacked = 255
	packHead  = 2 // of the first entry: the version, and its length
)

// value is what bbolt has under the sequence number seq.
type value struct {
	seq   uint64
	bytes []byte
}

// packer makes values of entries that follow one another.
type packer struct {
	next   uint64 // sequence number of the next entry
	values []value
	arena  []byte
	start  int // of the open pack, in arena
	n      int // entries in it
}

// add takes over a copy of an entry.
func (p *packer) add(entry []byte) {
	long := len(entry) > maxPacked
	if long || len(p.arena)-p.start+1+len(entry)+crcLen > maxPack {
		p.finish()
	}
	if p.n == 0 {
		p.start = len(p.arena)
		p.arena = append(p.arena, packVersion)
	}
	p.arena = append(append(p.arena, byte(len(entry))), entry...)
	p.n++
	p.next++
	if long {
		p.finish()
	}
}

// finish completes the open pack.
func (p *packer) finish() {
	if p.n == 0 {
		return
	}
	first, start := p.next-uint64(p.n), p.start+packHead
	if p.n > 1 {
		p.arena, start = seal(p.arena, p.start, first), p.start
	}
	p.values = append(p.values, value{first, p.arena[start:len(p.arena):len(p.arena)]})
	p.n = 0
}

// clear forgets everything but the room it took.
func (p *packer) clear() {
	clear(p.values)
	*p = packer{values: p.values[:0], arena: p.arena[:0]}
	if cap(p.arena) > maxArena {
		p.arena = nil
	}
}

func packed(v []byte) bool { return len(v) > 1+crcLen && v[0] == packVersion }

// entries returns the entries of a value, in order, and where in it they begin.
// What is damaged comes as entries that are.
func entries(v []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		if !packed(v) {
			yield(0, v)
			return
		}
		for at, end := 1, len(v)-crcLen; at < end; {
			next := min(at+1+int(v[at]), end)
			if !yield(at+1, v[at+1:next:next]) {
				return
			}
			at = next
		}
	}
}

// entryAt returns the entry of a value that is n behind the first, or nil.
func entryAt(v []byte, n uint64) []byte {
	for _, e := range entries(v) {
		if n == 0 {
			return e
		}
		n--
	}
	return nil
}

// checkPack returns errChecksum for a pack that is not as it was written. That its
// entries are, each of them says.
func checkPack(v []byte, seq uint64) error {
	if packed(v) && !whole(v, seq) {
		return errChecksum
	}
	return nil
}
