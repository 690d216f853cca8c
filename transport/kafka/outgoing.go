package kafkatransport

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// outgoing is the messages of one batch, as the client library reads them to encode
// them: one at a time, so that one record does for all.
type outgoing struct {
	gate     *gate
	messages []*dedup.Message
	indices  []int // of the messages to read
	record   kafka.Record
	headers  []kafka.Header
	key      payload
	value    payload
}

// ReadRecord implements kafka.RecordReader.
func (r *outgoing) ReadRecord() (*kafka.Record, error) {
	if !r.gate.pass() {
		return nil, errGateShut
	}
	if len(r.indices) == 0 {
		r.gate.read()
		return nil, io.EOF
	}
	m := r.messages[r.indices[0]]
	r.indices = r.indices[1:]
	r.headers = r.headers[:0]
	for _, h := range m.Headers {
		r.headers = append(r.headers, kafka.Header(h))
	}
	r.record = kafka.Record{Time: m.Published, Key: r.key.of(m.Key), Value: r.value.of(m.Value), Headers: r.headers}
	return &r.record, nil
}

// payload is a key or a value that can be read.
type payload struct{ bytes.Reader }

// of returns nil for nil, which is null in Kafka.
func (p *payload) of(b []byte) kafka.Bytes {
	if b == nil {
		return nil
	}
	p.Reset(b)
	return p
}

func (*payload) Close() error { return nil }

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
