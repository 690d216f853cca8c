package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/oncequeue/oncequeue/dedup"
)

const (
	// leaderTries is how often a batch is sent to a partition whose leader moves.
	leaderTries   = 3
	leaderBackoff = 200 * time.Millisecond
)

// writer writes some messages of one call of Publish to one partition.
type writer struct {
	sink     *Sink
	target   target
	messages []*dedup.Message
	errs     []error
}

// errHeldBack: not written, to keep the order of the partition.
var errHeldBack = dedup.Transient(errors.New("kafkatransport: not written, because an earlier message for the partition was not"))

// write writes the messages with the indices, batch by batch.
func (w *writer) write(ctx context.Context, indices []int) {
	for len(indices) > 0 {
		n, size := 0, 0
		for n < len(indices) {
			size += sizeOf(w.messages[indices[n]])
			if n > 0 && size > w.sink.config.BatchBytes {
				break
			}
			n++
		}
		if !w.batch(ctx, indices[:n]) {
			w.fail(indices[n:], errHeldBack)
			return
		}
		indices = indices[n:]
	}
}

func (w *writer) fail(indices []int, err error) {
	for _, i := range indices {
		w.errs[i] = err
	}
}

// batch writes one batch. It returns whether the messages after it may be
// written. A batch that is refused for what is in it is halved, until only the
// messages at fault are refused: brokers write all of a batch or nothing.
func (w *writer) batch(ctx context.Context, indices []int) bool {
	err := w.send(ctx, indices)
	if !errors.Is(err, errRefused) {
		w.fail(indices, err)
		return err == nil
	}
	if len(indices) == 1 {
		w.fail(indices, err)
		return true // it will never be written: nothing waits for it
	}
	half := len(indices) / 2
	if !w.batch(ctx, indices[:half]) {
		w.fail(indices[half:], errHeldBack)
		return false
	}
	return w.batch(ctx, indices[half:])
}

// send sends a batch to the partition's leader, again when that has moved.
func (w *writer) send(ctx context.Context, indices []int) error {
	for try := 1; ; try++ {
		err := w.produce(ctx, indices)
		if !errors.Is(err, errMoved) {
			return w.explain(err)
		}
		w.sink.link.renew()
		if try == leaderTries || !pause(ctx.Done(), leaderBackoff) {
			return w.explain(err)
		}
	}
}

func (w *writer) explain(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("kafkatransport: publish to %v: %w", w.target, err)
}

func (w *writer) produce(ctx context.Context, indices []int) error {
	if err := ctx.Err(); err != nil {
		return dedup.Transient(err)
	}
	records := make([]kafka.Record, len(indices))
	for i, index := range indices {
		records[i] = record(w.messages[index])
	}
	g := &gate{records: kafka.NewRecordReader(records...), done: make(chan struct{})}
	res, err := w.sink.link.client(w.sink.config.Timeout).Produce(ctx, &kafka.ProduceRequest{
		Topic:        w.target.topic,
		Partition:    w.target.partition,
		RequiredAcks: kafka.RequireAll,
		Compression:  w.sink.config.Compression,
		Records:      g,
	})
	if err != nil {
		unsent := g.shut()
		var write *writeError
		switch {
		case errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition), errors.Is(err, protocol.ErrNoLeader):
			return dedup.Transient(fmt.Errorf("%w: %w", errMoved, err))
		case unsent, errors.As(err, &write):
			w.sink.link.renew()
			return dedup.Transient(err)
		}
		w.sink.link.renew()
		return dedup.MaybeDone(fmt.Errorf("the broker did not confirm: %w", err))
	}
	return classify(res.Error)
}

func record(m *dedup.Message) kafka.Record {
	r := kafka.Record{Time: m.Published, Key: kafka.NewBytes(m.Key), Value: kafka.NewBytes(m.Value)}
	if len(m.Headers) > 0 {
		r.Headers = make([]kafka.Header, len(m.Headers))
		for i, h := range m.Headers {
			r.Headers[i] = kafka.Header(h)
		}
	}
	return r
}

// gate tells whether a request was begun, and can see to it that it is not: the
// client library reads the records when it writes the request to a connection.
type gate struct {
	records kafka.RecordReader
	state   atomic.Uint32
	done    chan struct{} // closed when all records are read
}

const (
	gateUnused = iota
	gateOpen
	gateShut
)

var errGateShut = errors.New("the call was given up before the request was sent")

// ReadRecord implements kafka.RecordReader.
func (g *gate) ReadRecord() (*kafka.Record, error) {
	if !g.state.CompareAndSwap(gateUnused, gateOpen) && g.state.Load() == gateShut {
		return nil, errGateShut
	}
	r, err := g.records.ReadRecord()
	if errors.Is(err, io.EOF) {
		close(g.done)
	}
	return r, err
}

// shut returns true if nothing was sent, and nothing will be. Else the request
// was begun; shut returns when the records are no longer read.
func (g *gate) shut() bool {
	if g.state.CompareAndSwap(gateUnused, gateShut) {
		return true
	}
	pause(g.done, time.Second) // encoding takes microseconds, unless it failed
	return false
}

var (
	// errMoved: nothing is written; the partition has another leader, or none yet.
	errMoved = errors.New("the partition's leader is not known")
	// errRefused: nothing is written; the broker refuses the records themselves.
	errRefused = errors.New("the broker refuses it")
)

// classify says what an error code of the broker means for the messages.
func classify(err error) error {
	var code kafka.Error
	if err == nil || !errors.As(err, &code) {
		return err
	}
	switch code {
	case kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.UnknownTopicOrPartition,
		kafka.FencedLeaderEpoch, kafka.UnknownLeaderEpoch, kafka.ReplicaNotAvailable, kafka.BrokerNotAvailable:
		return dedup.Transient(fmt.Errorf("%w: %w", errMoved, err))
	case kafka.NotEnoughReplicas, kafka.ThrottlingQuotaExceeded,
		kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.SASLAuthenticationFailed, kafka.InvalidTopic:
		return dedup.Transient(err)
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidMessageSize, kafka.InvalidRecord,
		kafka.InvalidTimestamp, kafka.PolicyViolation, kafka.UnsupportedForMessageFormat, kafka.UnsupportedCompressionType:
		return dedup.Permanent(fmt.Errorf("%w: %w", errRefused, err))
	case kafka.InvalidMessage:
		return err // damaged on the way, or refused by an old broker: an attempt that counts
	}
	// RequestTimedOut, NotEnoughReplicasAfterAppend, and what is not known to
	// come before the write.
	return dedup.MaybeDone(err)
}
