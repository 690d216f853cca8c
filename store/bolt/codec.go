package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// An entry of the log, which stands alone or in a pack, is
//
//	version  1 byte
//	kind     1 byte
//	body     depends on the kind
//	CRC-32C  4 bytes, little-endian, over the entry's key (its sequence number,
//	         8 bytes big-endian) and all before
//
// Numbers in bodies are varints unless said otherwise, fixed ones little-endian.
// Durations are in nanoseconds. What changes any of this gets a new version: an older program refuses it.
const (
	version       = 1
	stateVersion  = 3             // of a state with the system's uptime; one of version 1 has none
	recordVersion = 4             // of a record with more flags; version 1 had none of them
	newest        = recordVersion // of all of them
)

type kind byte

const (
	// kindState says what the store knows of itself. It is the first entry of
	// each file; a later one replaces it. Body: store id 16 bytes, number of the
	// file uvarint, then 8 bytes each: time, the highest token, and the fields of
	// memory; id of the system's boot 16 bytes; uptime 8 bytes. Times are nanoseconds
	// since 1970.
	kindState kind = 1
	// kindSource gives a string a number for the records behind it in the same
	// file; they count from 1. Body: number uvarint; the string.
	kindSource kind = 2
	// kindForgotten says that a key has no record any more. Body: id 16 bytes;
	// prev uvarint; written uvarint, see below.
	kindForgotten kind = 3
	// The record of a key in one of its states. Body:
	//	flags      1 byte; the last of them says that a byte of more flags follows
	//	id         16 bytes
	//	prev       uvarint: this sequence number minus that of the record it
	//	           replaces; 0 if it replaces none
	//	written    uvarint: store time, since the time in the file's first entry
	//	token      varint: minus written in microseconds since 1970
	//	attempt    uvarint
	//	expires    varint: minus written; of a claimed record minus lease end
	//	first seen varint: written minus it
	//	lease end  varint: minus written; of a claimed record only
	//	nonce      8 bytes; by flag, as all that follows
	//	print      8 bytes: the fingerprint
	//	position   source uvarint: its number, or 0 and then its length and
	//	           itself; partition varint; offset varint
	//	tag        4 bytes: of the fingerprint; by one of more flags
	//	held       position of the message whose claim it is; likewise, and without
	//	           it the position of a claimed record is that
	//	note       its length uvarint, and itself; likewise
	//	result     all up to the checksum
	//
	// A record of version 1 has no more flags, expires minus written in every state,
	// and nothing of held.
	kindClaimed  kind = 4
	kindReleased kind = 5
	kindDone     kind = 6
	kindParked   kind = 7

	// kindOld is added to the kind of a record of version 1 when it is read. On
	// disk no kind has it.
	kindOld kind = 0x80
)

const (
	flagAmbiguous = 1 << iota
	flagOmitted
	flagNonce
	flagFingerprint
	flagPosition
	flagResult
	flagMore
)

// More flags.
const (
	flagTag = 1 << iota
	flagHeld
	flagNote
	flagsKnown = 1<<iota - 1
)

// The states on disk do not follow renumbering in dedup.
var kindOfState = [...]kind{
	driver.StateClaimed:  kindClaimed,
	driver.StateReleased: kindReleased,
	driver.StateDone:     kindDone,
	driver.StateParked:   kindParked,
}

func (k kind) state() driver.State {
	switch k &^ kindOld {
	case kindClaimed:
		return driver.StateClaimed
	case kindReleased:
		return driver.StateReleased
	case kindDone:
		return driver.StateDone
	case kindParked:
		return driver.StateParked
	}
	return driver.StateFree
}

const (
	headLen = 2
	crcLen  = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// storeID is the identity of a store.
type storeID [16]byte

// state is the body of a kindState entry.
type state struct {
	id     storeID
	file   uint64
	time   time.Time
	high   driver.Token
	memory horizon.Horizon
	up     uptime // at that time, or a moment later
}

// entry is the body of a kindForgotten entry or of a record; a forgotten key has
// the zero Record.
type entry struct {
	id      driver.ID
	prev    uint64 // sequence number of the record that this one replaces; 0: none
	written time.Time
	record  driver.Record
}

// seal appends the checksum of the entry that starts at dst[start].
func seal(dst []byte, start int, seq uint64) []byte {
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:], seq))
}

// checksum takes the key by hand, since crc32 would have it in memory of its own.
func checksum(b []byte, seq uint64) uint32 {
	sum := ^uint32(0)
	for _, k := range keyOf(seq) {
		sum = castagnoli[byte(sum)^k] ^ sum>>8
	}
	return crc32.Update(^sum, castagnoli, b)
}

func keyOf(seq uint64) (key [8]byte) {
	binary.BigEndian.PutUint64(key[:], seq)
	return key
}

func appendState(dst []byte, seq uint64, s *state) []byte {
	start := len(dst)
	dst = append(dst, stateVersion, byte(kindState))
	dst = append(dst, s.id[:]...)
	dst = binary.AppendUvarint(dst, s.file)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.time.UnixNano()))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.high))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.memory.Since.UnixNano()))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.memory.TTL))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.memory.Before.UnixNano()))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.memory.Short))
	dst = append(dst, s.up.boot[:]...)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.up.passed))
	return seal(dst, start, seq)
}

func appendSource(dst []byte, seq, number uint64, source string) []byte {
	start := len(dst)
	dst = append(dst, version, byte(kindSource))
	dst = binary.AppendUvarint(dst, number)
	dst = append(dst, source...)
	return seal(dst, start, seq)
}

// appendEntry appends the encoding of e under the sequence number seq, in a file
// of the time base in which the record's source has the given number, or 0.
func appendEntry(dst []byte, base time.Time, source uint64, seq uint64, e *entry) []byte {
	start := len(dst)
	prev := uint64(0)
	if e.prev != 0 {
		prev = seq - e.prev
	}
	written := uint64(e.written.Sub(base))
	r := &e.record
	if r.State == driver.StateFree {
		dst = append(dst, version, byte(kindForgotten))
		dst = append(dst, e.id[:]...)
		dst = binary.AppendUvarint(dst, prev)
		dst = binary.AppendUvarint(dst, written)
		return seal(dst, start, seq)
	}
	flags := bit(r.Ambiguous, flagAmbiguous) | bit(r.Omitted, flagOmitted) | bit(r.Nonce != 0, flagNonce) |
		bit(r.Fingerprint != driver.Fingerprint{}, flagFingerprint) | bit(r.First != driver.Position{}, flagPosition) |
		bit(r.Result != nil, flagResult)
	claimed := r.State == driver.StateClaimed
	more := bit(r.Tag != 0, flagTag) | bit(claimed && r.Held != r.First, flagHeld) | bit(claimed && len(r.Note) > 0, flagNote)
	flags |= bit(more != 0, flagMore)
	dst = append(dst, recordVersion, byte(kindOfState[r.State]), flags)
	if more != 0 {
		dst = append(dst, more)
	}
	dst = append(dst, e.id[:]...)
	dst = binary.AppendUvarint(dst, prev)
	dst = binary.AppendUvarint(dst, written)
	dst = binary.AppendVarint(dst, int64(r.Token)-e.written.UnixMicro())
	dst = binary.AppendUvarint(dst, uint64(r.Attempt))
	from := e.written
	if claimed {
		from = r.LeaseEnd
	}
	dst = binary.AppendVarint(dst, int64(r.Expires.Sub(from)))
	dst = binary.AppendVarint(dst, int64(e.written.Sub(r.FirstSeen)))
	if claimed {
		dst = binary.AppendVarint(dst, int64(r.LeaseEnd.Sub(e.written)))
	}
	if r.Nonce != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, r.Nonce)
	}
	if flags&flagFingerprint != 0 {
		dst = append(dst, r.Fingerprint[:]...)
	}
	if flags&flagPosition != 0 {
		dst = appendPosition(dst, r.First, source)
	}
	if more&flagTag != 0 {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(r.Tag))
	}
	if more&flagHeld != 0 {
		if r.Held.Source != r.First.Source {
			source = 0 // it is spelled out
		}
		dst = appendPosition(dst, r.Held, source)
	}
	if more&flagNote != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Note)))
		dst = append(dst, r.Note...)
	}
	dst = append(dst, r.Result...)
	return seal(dst, start, seq)
}

// appendPosition appends p, whose source has the given number, or 0.
func appendPosition(dst []byte, p driver.Position, source uint64) []byte {
	dst = binary.AppendUvarint(dst, source)
	if source == 0 {
		dst = binary.AppendUvarint(dst, uint64(len(p.Source)))
		dst = append(dst, p.Source...)
	}
	dst = binary.AppendVarint(dst, int64(p.Partition))
	return binary.AppendVarint(dst, p.Offset)
}

func bit(is bool, f byte) byte {
	if is {
		return f
	}
	return 0
}

var (
	errChecksum = errors.New("the checksum does not match")
	errBody     = errors.New("the entry does not follow the format")
)

// whole says whether b, which ends with its checksum, is what was written under seq.
func whole(b []byte, seq uint64) bool {
	end := len(b) - crcLen
	return binary.LittleEndian.Uint32(b[end:]) == checksum(b[:end], seq)
}

// unseal checks the entry b under seq and returns its kind and body.
func unseal(b []byte, seq uint64) (kind, []byte, error) {
	if len(b) < headLen+crcLen {
		return 0, nil, errBody
	}
	if !whole(b, seq) {
		return 0, nil, errChecksum
	}
	k, v := kind(b[1]), b[0]
	record := k.state() != driver.StateFree
	switch {
	case v == 0 || v > newest:
		return 0, nil, fmt.Errorf("%w %d, this program knows %d: use the newer program that wrote it", ErrFormat, v, newest)
	case k&kindOld != 0:
		return 0, nil, errBody
	case v == version && record:
		k |= kindOld
	case v == version, v == stateVersion && k == kindState, v == recordVersion && record:
	default: // such as a whole pack, where an entry should be
		return 0, nil, errBody
	}
	end := len(b) - crcLen
	return k, b[headLen:end:end], nil
}

func decodeState(body []byte) (state, error) {
	p := parser{b: body}
	var s state
	copy(s.id[:], p.take(len(s.id)))
	s.file = p.uvarint()
	s.time = p.time()
	s.high = driver.Token(p.uint64())
	s.memory.Since = p.time()
	s.memory.TTL = time.Duration(p.uint64())
	s.memory.Before = p.time()
	s.memory.Short = time.Duration(p.uint64())
	if len(p.b) > 0 { // not of version 1
		copy(s.up.boot[:], p.take(len(s.up.boot)))
		s.up.passed = time.Duration(p.uint64())
	}
	if p.bad || len(p.b) != 0 {
		return state{}, errBody
	}
	return s, nil
}

func decodeSource(body []byte) (number uint64, source string, err error) {
	p := parser{b: body}
	number, source = p.uvarint(), string(p.b)
	if p.bad || number == 0 || number > maxSources || source == "" {
		return 0, "", errBody
	}
	return number, source, nil
}

// decodeEntry decodes the body of a kindForgotten entry or of a record. The
// Result and the Note alias body.
func decodeEntry(k kind, body []byte, base time.Time, sources []string, seq uint64) (entry, error) {
	p := parser{b: body}
	var e entry
	flags, more := byte(0), byte(0)
	if k != kindForgotten {
		flags = p.byte()
	}
	old := k&kindOld != 0
	if !old && flags&flagMore != 0 {
		more = p.byte()
	}
	copy(e.id[:], p.take(len(e.id)))
	if prev := p.uvarint(); prev >= seq {
		p.bad = p.bad || prev != 0
	} else if prev != 0 {
		e.prev = seq - prev
	}
	e.written = base.Add(time.Duration(p.uvarint()))
	if k == kindForgotten {
		if p.bad || len(p.b) != 0 {
			return entry{}, errBody
		}
		return e, nil
	}
	rec := &e.record
	if rec.State = k.state(); rec.State == driver.StateFree {
		return entry{}, errBody
	}
	rec.Ambiguous, rec.Omitted = flags&flagAmbiguous != 0, flags&flagOmitted != 0
	rec.Token = driver.Token(e.written.UnixMicro() + p.varint())
	attempt := p.uvarint()
	rec.Attempt = int(attempt & math.MaxInt)
	expires := time.Duration(p.varint())
	rec.FirstSeen = e.written.Add(-time.Duration(p.varint()))
	from := e.written
	claimed := rec.State == driver.StateClaimed
	if claimed {
		rec.LeaseEnd = e.written.Add(time.Duration(p.varint()))
		if !old {
			from = rec.LeaseEnd
		}
	}
	rec.Expires = from.Add(expires)
	if flags&flagNonce != 0 {
		rec.Nonce = p.uint64()
	}
	if flags&flagFingerprint != 0 {
		copy(rec.Fingerprint[:], p.take(len(rec.Fingerprint)))
	}
	if flags&flagPosition != 0 {
		rec.First = p.position(sources)
	}
	if !old {
		p.more(rec, more, sources)
	}
	if flags&flagResult != 0 {
		rec.Result = p.take(len(p.b))
	}
	if p.bad || len(p.b) != 0 {
		return entry{}, errBody
	}
	return e, nil
}

// parser takes an entry's body apart; bad says that it was too short somewhere.
type parser struct {
	b   []byte
	bad bool
}

func (p *parser) take(n int) []byte {
	if n > len(p.b) {
		p.b, p.bad = nil, true
		return nil
	}
	b := p.b[:n:n]
	p.b = p.b[n:]
	return b
}

func (p *parser) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// more takes those fields of rec that no record of version 1 has.
func (p *parser) more(rec *driver.Record, flags byte, sources []string) {
	claimed := rec.State == driver.StateClaimed
	p.bad = p.bad || flags&^flagsKnown != 0 || !claimed && flags&(flagHeld|flagNote) != 0
	if flags&flagTag != 0 {
		if b := p.take(4); b != nil {
			rec.Tag = driver.Tag(binary.LittleEndian.Uint32(b))
		}
	}
	if claimed {
		rec.Held = rec.First
	}
	if flags&flagHeld != 0 {
		rec.Held = p.position(sources)
	}
	if flags&flagNote != 0 {
		rec.Note = p.take(int(min(p.uvarint(), math.MaxInt32)))
	}
}

func (p *parser) position(sources []string) (at driver.Position) {
	switch n := p.uvarint(); {
	case n == 0:
		at.Source = string(p.take(int(min(p.uvarint(), math.MaxInt32))))
	case n <= uint64(len(sources)):
		at.Source = sources[n-1]
		p.bad = p.bad || at.Source == "" // its definition is lost
	default:
		p.bad = true
	}
	partition := p.varint()
	at.Partition = int32(partition)
	p.bad = p.bad || int64(at.Partition) != partition
	at.Offset = p.varint()
	return at
}

func (p *parser) time() time.Time { return time.Unix(0, int64(p.uint64())).UTC() }

func (p *parser) uvarint() uint64 {
	v, n := binary.Uvarint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}

func (p *parser) varint() int64 {
	v, n := binary.Varint(p.b)
	if n <= 0 {
		p.b, p.bad = nil, true
		return 0
	}
	p.b = p.b[n:]
	return v
}
