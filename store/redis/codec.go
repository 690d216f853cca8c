package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// A record is a string of bytes, numbers big-endian, times in milliseconds since
// 1970:
//
//	 1  version of the format
//	 1  state (3 bits), ambiguous (8), omitted (16), tagged (32)
//	 7  token
//	 6  when it expires
//	 6  first seen
//	 2  attempts
//	 6  end of the lease          Claimed
//	 8  nonce                     Claimed, Released
//	 2  length of held            Claimed
//	 2  length of note            Claimed
//	..  held                      Claimed: a position; none if it is the one below
//	..  note                      Claimed
//	 8  fingerprint               not Free
//	 4  tag of the fingerprint    if tagged
//	..  position, see appendPosition
//	..  result                    Done, Parked
//
// Free is what is left of a record that was forgotten while its token was ahead
// of the clock. The scripts in lua/ know this layout too.
//
// In version 1 nothing was tagged, and a Claimed record had neither held nor note,
// nor their lengths. Such records are read; whatever changes one writes this version,
// except that an extend without a note leaves a claim as it is.
const (
	formatVersion = 2
	oldVersion    = 1

	ambiguous = 8
	omitted   = 16
	flagTag   = 32
	maxSource = 32 << 10

	// maxToken is the largest number that Lua counts exactly; microseconds since
	// 1970 reach it in the year 2255.
	maxToken driver.Token = 1<<53 - 1
)

var errShort = errors.New("it is cut short")

// decode reads a record. source finds the name of an interned source.
func decode(b string, source func(tag string) string) (r driver.Record, err error) {
	if b == "" {
		return r, nil
	}
	if b[0] != formatVersion && b[0] != oldVersion {
		return r, unknownVersion(b[0])
	}
	p := reader{b: b}
	flags := p.take(2)[1]
	r.State = driver.State(flags & 7)
	r.Ambiguous, r.Omitted = flags&ambiguous != 0, flags&omitted != 0
	r.Token = driver.Token(number(p.take(7)))
	r.Expires, r.FirstSeen = moment(p.take(6)), moment(p.take(6))
	r.Attempt = int(number(p.take(2)))
	if p.short {
		return r, errShort
	}
	if r.State == driver.StateFree {
		return driver.Record{}, nil
	}
	claimed, old := r.State == driver.StateClaimed, b[0] == oldVersion
	if claimed {
		r.LeaseEnd = moment(p.take(6))
	}
	if claimed || r.State == driver.StateReleased {
		r.Nonce = number(p.take(8))
	}
	var held, note string
	if claimed && !old {
		h, n := number(p.take(2)), number(p.take(2))
		held, note = p.take(int(h)), p.take(int(n))
	}
	copy(r.Fingerprint[:], p.take(len(r.Fingerprint)))
	if flags&flagTag != 0 {
		r.Tag = driver.Tag(number(p.take(4)))
	}
	if p.short {
		return r, errShort
	}
	r.First, p.b, err = decodePosition(p.b, source)
	if err == nil && claimed && !old {
		err = decodeClaim(&r, held, note, source)
	}
	if err == nil && p.b != "" {
		r.Result = []byte(p.b)
	}
	return r, err
}

// decodeClaim reads what a claimed record alone has.
func decodeClaim(r *driver.Record, held, note string, source func(tag string) string) (err error) {
	r.Held = r.First
	if held != "" {
		r.Held, _, err = decodePosition(held, source)
	}
	if note != "" {
		r.Note = []byte(note)
	}
	return err
}

// reader takes a record apart; short says that it was cut short somewhere. The
// missing bytes read as zeros.
type reader struct {
	b     string
	short bool
}

const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00"

func (p *reader) take(n int) string {
	if n > len(p.b) {
		p.b, p.short = "", true
		return zeros[:min(n, len(zeros))]
	}
	b := p.b[:n]
	p.b = p.b[n:]
	return b
}

func number(b string) (n uint64) {
	for i := range len(b) {
		n = n<<8 | uint64(b[i])
	}
	return n
}

func moment(b string) time.Time { return time.UnixMilli(int64(number(b))).UTC() }

func appendNumber(b []byte, n uint64, size int) []byte {
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

// milliseconds returns d rounded up: nothing ends early. Only of the last
// millisecond that a Duration can tell, something is missing.
func milliseconds(d time.Duration) int64 {
	ms := d.Milliseconds()
	if d%time.Millisecond > 0 && ms < math.MaxInt64/int64(time.Millisecond) {
		ms++
	}
	return max(ms, 0)
}

func appendDuration(b []byte, d time.Duration) []byte {
	return appendNumber(b, uint64(milliseconds(d)), 6)
}

func unknownVersion(v byte) error {
	return fmt.Errorf("it has version %d of the format, and this program knows %d: upgrade the program", v, formatVersion)
}

// A position is the source, the partition and the offset. The source is a
// uvarint: 0 for none, 1 before the tag of an interned one, else its length + 1
// before the name itself. Partition and offset are varints.
func appendPosition(b []byte, p driver.Position, tag string) []byte {
	switch {
	case p.Source == "":
		b = append(b, 0)
	case tag != "":
		b = append(append(b, 1), tag...)
	default:
		b = append(binary.AppendUvarint(b, uint64(len(p.Source))+1), p.Source...)
	}
	b = binary.AppendVarint(b, int64(p.Partition))
	return binary.AppendVarint(b, p.Offset)
}

func decodePosition(b string, source func(tag string) string) (p driver.Position, rest string, err error) {
	n, b, ok := uvarint(b)
	switch {
	case !ok || n > 1 && uint64(len(b)) < n-1 || n == 1 && len(b) < tagSize:
		return p, "", errShort
	case n == 1:
		p.Source, b = source(b[:tagSize]), b[tagSize:]
	case n > 1:
		p.Source, b = b[:n-1], b[n-1:]
	}
	partition, b, ok := uvarint(b)
	if !ok {
		return p, "", errShort
	}
	offset, b, ok := uvarint(b)
	if !ok {
		return p, "", errShort
	}
	p.Partition, p.Offset = int32(unzigzag(partition)), unzigzag(offset)
	return p, b, nil
}

func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

// uvarint is binary.Uvarint for strings.
func uvarint(s string) (n uint64, rest string, ok bool) {
	for i := range min(len(s), binary.MaxVarintLen64) {
		n |= uint64(s[i]&0x7f) << (7 * i)
		if s[i] < 0x80 {
			return n, s[i+1:], true
		}
	}
	return 0, "", false
}

func appendClaim(b []byte, op driver.Op, tag string) []byte {
	b = appendDuration(b, op.Lease)
	b = appendDuration(b, op.TTL)
	b = appendNumber(b, uint64(op.Floor)+1, 7)
	b = append(b, byte(driver.StateClaimed)|isTagged(op))
	b = appendNumber(b, op.Nonce, 8)
	b = append(b, 0, 0) // the length of held
	b = appendNumber(b, uint64(len(op.Note)), 2)
	b = append(b, op.Note...)
	return appendPosition(appendPrint(b, op), op.Position, tag)
}

// appendOp appends what the script for op reads.
func appendOp(b []byte, op driver.Op, tag string) []byte {
	// Together they are at most the longest Duration, as in Step.
	op.Lease = max(op.Lease, 0)
	if op.Kind == driver.OpClaim || op.Kind == driver.OpExtend {
		op.TTL = min(op.TTL, math.MaxInt64-op.Lease)
	}
	if op.Kind == driver.OpClaim {
		return appendClaim(b, op, tag)
	}
	var kind, state byte
	switch op.Kind {
	case driver.OpExtend:
		kind = 'X'
	case driver.OpComplete:
		kind, state = 'S', byte(driver.StateDone)|flag(op.Omitted, omitted)
	case driver.OpPark:
		kind, state = 'S', byte(driver.StateParked)|flag(op.Omitted, omitted)|flag(op.Ambiguous, ambiguous)
	case driver.OpRelease:
		kind = 'R'
	case driver.OpUnpark:
		kind, op.Token = 'U', op.Floor+1
	}
	b = append(b, kind)
	start := len(b) - 1
	b = appendDuration(b, op.TTL)
	b = append(b, formatVersion, state)
	b = appendNumber(b, uint64(op.Token), 7)
	switch kind {
	case 'X':
		return append(appendDuration(b, op.Lease), op.Note...)
	case 'R':
		return append(b, flag(op.Ambiguous, 1), flag(!op.Uncounted, 1))
	case 'U':
		return b
	}
	b = append(b, isTagged(op))
	at := len(b)
	b = append(b, 0, 0)
	b = appendPosition(appendPrint(b, op), op.Position, tag)
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-start+1))
	return append(b, op.Result...)
}

// isTagged returns flagTag if the fingerprint of op has a tag.
func isTagged(op driver.Op) byte {
	return flag(op.Tag != 0 && op.Fingerprint != (driver.Fingerprint{}), flagTag)
}

// appendPrint appends the fingerprint of op, and its tag.
func appendPrint(b []byte, op driver.Op) []byte {
	b = append(b, op.Fingerprint[:]...)
	if isTagged(op) != 0 {
		b = appendNumber(b, uint64(op.Tag), 4)
	}
	return b
}

func flag(set bool, value byte) byte {
	if set {
		return value
	}
	return 0
}
