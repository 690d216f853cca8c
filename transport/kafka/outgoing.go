package kafkatransport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// outgoing is the messages of one batch, as the client library reads them to write them
// to a connection. It encodes them itself: kafka-go would change timestamps beyond the
// years 1678 and 2262, 0 and -1.
type outgoing struct {
	gate        *gate
	compression kafka.Compression
	messages    []*dedup.Message
	indices     []int // of the messages to write
	encoded     *bytes.Reader
}

// Read implements io.Reader.
func (r *outgoing) Read(p []byte) (int, error) {
	if !r.gate.pass() {
		return 0, errGateShut
	}
	if r.encoded == nil {
		b, err := encodeBatch(r.messages, r.indices, r.compression, time.Now())
		if err != nil {
			return 0, err
		}
		r.encoded = bytes.NewReader(b)
	}
	n, err := r.encoded.Read(p)
	if errors.Is(err, io.EOF) {
		r.gate.read()
	}
	return n, err
}

// noTimestamp is how Kafka says that a record has none.
const noTimestamp = -1

// stampOf returns the timestamp to write: the message's own. A message that a broker
// holds without a timestamp has none here either; one that was made here gets now.
func stampOf(m *dedup.Message, now time.Time) int64 {
	switch {
	case !m.Published.IsZero():
		return m.Published.UnixMilli()
	case m.Position != dedup.Position{}:
		return noTimestamp
	}
	return now.UnixMilli()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeBatch returns a record set: its size, and one record batch of version 2.
func encodeBatch(messages []*dedup.Message, indices []int, compression kafka.Compression, now time.Time) ([]byte, error) {
	size := 128
	for _, i := range indices {
		size += recordSize(messages[i])
	}
	records := make([]byte, 0, size)
	first := stampOf(messages[indices[0]], now)
	latest := first
	for n, i := range indices {
		stamp := stampOf(messages[i], now)
		latest = max(latest, stamp)
		records = appendRecord(records, messages[i], stamp-first, n)
	}
	if codec := compression.Codec(); codec != nil {
		var compressed bytes.Buffer
		w := codec.NewWriter(&compressed)
		if _, err := w.Write(records); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		records = compressed.Bytes()
	}
	const head = 4 + 61 // size, and the batch before its records
	b := make([]byte, 0, head+len(records))
	be := binary.BigEndian
	b = be.AppendUint32(b, uint32(61+len(records)))
	b = be.AppendUint64(b, 0)                       // base offset
	b = be.AppendUint32(b, uint32(49+len(records))) // length of the rest
	b = be.AppendUint32(b, 0xffffffff)              // leader epoch: none
	b = append(b, 2)                                // version
	b = be.AppendUint32(b, 0)                       // checksum of the rest, set below
	from := len(b)
	b = be.AppendUint16(b, uint16(compression)&0x7)
	b = be.AppendUint32(b, uint32(len(indices)-1)) // last offset
	b = be.AppendUint64(b, uint64(first))
	b = be.AppendUint64(b, uint64(latest))
	b = append(b, bytes.Repeat([]byte{0xff}, 8+2+4)...) // producer id, epoch, sequence: none
	b = be.AppendUint32(b, uint32(len(indices)))
	b = append(b, records...)
	be.PutUint32(b[from-4:], crc32.Checksum(b[from:], castagnoli))
	return b, nil
}

// recordSize returns how much room a record needs at most.
func recordSize(m *dedup.Message) int {
	n := 6*binary.MaxVarintLen64 + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += 2*binary.MaxVarintLen32 + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

func appendRecord(b []byte, m *dedup.Message, stampDelta int64, offsetDelta int) []byte {
	size := 1 + varintSize(stampDelta) + varintSize(int64(offsetDelta)) + bytesSize(m.Key) + bytesSize(m.Value) + varintSize(int64(len(m.Headers)))
	for i := range m.Headers {
		n := len(m.Headers[i].Key)
		size += varintSize(int64(n)) + n + bytesSize(m.Headers[i].Value)
	}
	b = binary.AppendVarint(b, int64(size))
	b = append(b, 0) // attributes
	b = binary.AppendVarint(b, stampDelta)
	b = binary.AppendVarint(b, int64(offsetDelta))
	b = appendBytes(b, m.Key)
	b = appendBytes(b, m.Value)
	b = binary.AppendVarint(b, int64(len(m.Headers)))
	for i := range m.Headers {
		b = binary.AppendVarint(b, int64(len(m.Headers[i].Key)))
		b = append(b, m.Headers[i].Key...)
		b = appendBytes(b, m.Headers[i].Value)
	}
	return b
}

// appendBytes appends p with its length, nil as null.
func appendBytes(b, p []byte) []byte {
	if p == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(p))), p...)
}

func bytesSize(p []byte) int {
	if p == nil {
		return 1
	}
	return varintSize(int64(len(p))) + len(p)
}

func varintSize(v int64) int {
	n := 1
	for u := uint64(v)<<1 ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// gate tells whether a request was begun, and can see to it that it is not: the
// client library reads the records when it writes the request to a connection.
type gate struct {
	state   atomic.Uint32
	reading atomic.Int32
	done    chan struct{} // closed when all records are read
}

const (
	gateUnused = iota
	gateOpen
	gateShut
)

var errGateShut = errors.New("the call was given up before the request was sent")

// newGate makes the gate of a request with that many batches.
func newGate(batches int) *gate {
	g := &gate{done: make(chan struct{})}
	g.reading.Store(int32(batches))
	return g
}

// pass reports whether a record may be read. The first one opens the gate.
func (g *gate) pass() bool {
	return g.state.CompareAndSwap(gateUnused, gateOpen) || g.state.Load() == gateOpen
}

// read says that all records of a batch are read.
func (g *gate) read() {
	if g.reading.Add(-1) == 0 {
		close(g.done)
	}
}

// shut returns true if nothing was sent, and nothing will be. Else the request
// was begun; shut returns when the records are no longer read.
func (g *gate) shut() bool {
	if g.state.CompareAndSwap(gateUnused, gateShut) {
		return true
	}
	wait.For(g.done, time.Second) // encoding takes microseconds, unless it failed
	return false
}
