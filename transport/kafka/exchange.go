package kafkatransport

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"
)

// rawFetch is a fetch that reads its answer by itself: kafka-go's own decoder leaves out
// the broker's timestamps. It implements protocol.RawExchanger.
type rawFetch struct {
	fetchapi.Request
	clientID string
	version  int16
}

// fetched is its answer.
type fetched struct {
	fetchapi.Response
	// stamps are the timestamps that the broker gave to whole batches, by their base
	// offsets: those of a topic with message.timestamp.type=LogAppendTime.
	stamps map[int64]int64
}

// Required implements protocol.RawExchanger.
func (r *rawFetch) Required(versions map[protocol.ApiKey]int16) bool {
	r.version = versions[protocol.Fetch]
	return true
}

// answers are buffers for whole answers, which are decoded and then used again.
var answers = sync.Pool{New: func() any { return new([]byte) }}

// maxAnswer bounds the size that is believed of an answer.
const maxAnswer = 1 << 30

// RawExchange implements protocol.RawExchanger.
func (r *rawFetch) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	if err := protocol.WriteRequest(rw, r.version, correlation, r.clientID, &r.Request); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(rw, size[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(size[:]))
	if n < 4 || n > maxAnswer {
		return nil, fmt.Errorf("an answer of %d bytes to a fetch", n)
	}
	buffer := answers.Get().(*[]byte)
	defer answers.Put(buffer)
	if cap(*buffer) < n+4 {
		*buffer = make([]byte, n+4)
	}
	b := (*buffer)[:n+4]
	copy(b, size[:])
	if _, err := io.ReadFull(rw, b[4:]); err != nil {
		return nil, err
	}
	res, err := decodeAnswer(&reader{rest: b}, protocol.Fetch, r.version)
	if err != nil {
		return nil, err
	}
	answer, ok := res.(*fetchapi.Response)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a fetch", res)
	}
	return &fetched{Response: *answer, stamps: appendTimes(b[8:], r.version)}, nil
}

// correlation is the id of all requests that are exchanged here: a connection has one
// request at a time.
const correlation = 1

func decodeAnswer(r io.Reader, key protocol.ApiKey, version int16) (protocol.Message, error) {
	id, res, err := protocol.ReadResponse(r, key, version)
	if err == nil && id != correlation {
		err = fmt.Errorf("the answer is to request %d, not %d", id, correlation)
	}
	return res, err
}

// appendTimes finds the batches whose timestamp is the broker's in a fetch's answer,
// without its size and correlation id. The first damage ends it: the decoder tells.
func appendTimes(b []byte, version int16) map[int64]int64 {
	r := reader{rest: b}
	var stamps map[int64]int64
	if version >= 1 {
		r.skip(4) // throttle time
	}
	if version >= 7 {
		r.skip(2 + 4) // error, session
	}
	for range r.count() {
		r.skip(int(int16(r.uint(2)))) // topic
		for range r.count() {
			r.skip(4 + 2 + 8) // partition, error, high watermark
			if version >= 4 {
				r.skip(8) // last stable offset
			}
			if version >= 5 {
				r.skip(8) // log start
			}
			if version >= 4 {
				r.skip(16 * r.count()) // aborted transactions
			}
			if version >= 11 {
				r.skip(4) // preferred replica
			}
			records := reader{rest: r.take(r.count())}
			for len(records.rest) > batchHead {
				base := int64(records.uint(8))
				batch := records.take(records.count())
				if len(batch) <= batchHead || batch[4] != 2 { // magic
					continue
				}
				const appendTime = 1 << 3
				if binary.BigEndian.Uint16(batch[9:])&appendTime != 0 {
					if stamps == nil {
						stamps = make(map[int64]int64)
					}
					stamps[base] = int64(binary.BigEndian.Uint64(batch[23:]))
				}
			}
		}
	}
	return stamps
}

// batchHead is how much of a batch is read here, from its leader epoch to its largest
// timestamp.
const batchHead = 31

// reader reads numbers from memory. A number that is not there is zero.
type reader struct{ rest []byte }

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// take returns the next n bytes; fewer if there are no more.
func (r *reader) take(n int) []byte {
	n = max(0, min(n, len(r.rest)))
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) skip(n int) { r.take(n) }

// uint reads a number of n bytes.
func (r *reader) uint(n int) (v uint64) {
	b := r.take(n)
	if len(b) < n {
		r.rest = nil
		return 0
	}
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// count reads the length of an array or of bytes: 4 bytes, -1 for null.
func (r *reader) count() int { return min(int(int32(r.uint(4))), len(r.rest)) }

// str reads a string.
func (r *reader) str() string { return string(r.take(int(int16(r.uint(2))))) }
