package kafkatransport

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
)

// readCommitted makes brokers hold back the records of open transactions and
// list the aborted ones. Records outside transactions are not affected.
const readCommitted = 1

// batch is what one fetch of a partition brought.
type batch struct {
	messages []dedup.Message // in the order of their offsets
	next     int64           // where to go on
	end      int64           // of the log, the messages of open transactions included
	throttle time.Duration   // for which the broker answers no other request
}

// source is a partition to fetch from.
type source struct {
	topic     string
	partition int32
	maxWait   time.Duration
	patience  time.Duration // beyond maxWait
	maxBytes  int
	since     time.Time // of the messages: see dedup.Message
	expect    int       // messages in the previous batch: how much to make room for
}

// fetch asks the partition's leader for what follows offset. An answer with an
// error code comes back as a kafka.Error.
func (s *source) fetch(ctx context.Context, l *link, offset int64) (batch, error) {
	ctx, cancel := context.WithTimeout(ctx, s.maxWait+s.patience)
	defer cancel()
	res, err := l.roundTrip(ctx, &rawFetch{clientID: l.clientID, Request: fetchapi.Request{
		ReplicaID:      -1,
		MaxWaitTime:    int32(s.maxWait.Milliseconds()),
		MinBytes:       1,
		MaxBytes:       math.MaxInt32, // there is one partition, and its bound counts
		IsolationLevel: readCommitted,
		SessionEpoch:   -1, // no fetch session
		Topics: []fetchapi.RequestTopic{{Topic: s.topic, Partitions: []fetchapi.RequestPartition{{
			Partition:          s.partition,
			CurrentLeaderEpoch: -1,
			FetchOffset:        offset,
			LogStartOffset:     -1,
			PartitionMaxBytes:  int32(s.maxBytes),
		}}}},
	}})
	if err != nil {
		return batch{}, err
	}
	answer, ok := res.(*fetched)
	switch {
	case !ok:
		return batch{}, fmt.Errorf("unexpected answer %T to a fetch", res)
	case answer.ErrorCode != 0:
		return batch{}, kafka.Error(answer.ErrorCode)
	case len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1:
		return batch{}, errors.New("the answer to a fetch does not have the partition")
	}
	p := &answer.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return batch{}, kafka.Error(p.ErrorCode)
	}
	b, err := s.decode(p, offset, answer.stamps)
	b.throttle = time.Duration(answer.ThrottleTimeMs) * time.Millisecond
	return b, err
}

// decode returns the messages from offset on. stamps are the broker's own timestamps, by
// the base offsets of their batches.
func (s *source) decode(p *fetchapi.ResponsePartition, offset int64, stamps map[int64]int64) (batch, error) {
	// Brokers list them as they ended.
	aborted := slices.Clone(p.AbortedTransactions)
	slices.SortFunc(aborted, func(a, b fetchapi.ResponseTransaction) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	d := decoder{
		source:  s,
		next:    offset,
		base:    -1,
		aborted: aborted,
		stamps:  stamps,
		batch:   batch{messages: make([]dedup.Message, 0, s.expect)},
	}
	if err := d.walk(p.RecordSet.Records); err != nil {
		return batch{}, err
	}
	if d.base >= 0 && d.next == offset {
		// Compaction leaves batches without records. kafka-go does not tell how far
		// they reach, but the first covers the offset asked for, and each its base.
		d.next = max(offset, d.base) + 1
	}
	d.batch.next, d.batch.end = d.next, p.HighWatermark
	s.expect = len(d.batch.messages)
	return d.batch, nil
}

// decoder turns the record batches of one answer into messages.
type decoder struct {
	source  *source
	next    int64                          // the offset after the last record seen
	base    int64                          // of the last batch; -1 before the first
	aborted []fetchapi.ResponseTransaction // not yet reached, in the order of their first offsets
	active  map[int64]bool                 // producers inside an aborted transaction
	stamps  map[int64]int64                // the broker's, by the base offsets of batches
	batch   batch
	bytes   arena[byte]
	headers arena[dedup.Header]
}

func (d *decoder) walk(r protocol.RecordReader) error {
	switch b := r.(type) {
	case nil:
		return nil
	case *protocol.RecordStream:
		for _, r := range b.Records {
			if err := d.walk(r); err != nil {
				return err
			}
		}
		return nil
	case *protocol.ControlBatch:
		d.enter(b.BaseOffset)
		return d.each(b.Records, func(r *protocol.Record) error {
			key, err := protocol.ReadAll(r.Key)
			// A marker's key is its version and type; type 0 is an abort.
			if err == nil && len(key) >= 4 && binary.BigEndian.Uint16(key[2:]) == 0 {
				delete(d.active, b.ProducerID)
			}
			return err
		})
	case *protocol.RecordBatch:
		d.enter(b.BaseOffset)
		if b.Attributes.Transactional() && d.active[b.ProducerID] {
			return d.each(b.Records, func(*protocol.Record) error { return nil })
		}
		return d.each(b.Records, d.add)
	case *protocol.MessageSet:
		d.enter(b.BaseOffset)
		return d.each(b.Records, d.add)
	default:
		return fmt.Errorf("unexpected kind %T of record batch", r)
	}
}

// enter begins a batch, and the aborted transactions that begin with it.
func (d *decoder) enter(base int64) {
	d.base = base
	for len(d.aborted) > 0 && d.aborted[0].FirstOffset <= base {
		if d.active == nil {
			d.active = make(map[int64]bool)
		}
		d.active[d.aborted[0].ProducerID] = true
		d.aborted = d.aborted[1:]
	}
}

// each calls f for the records that were asked for: a batch can begin before.
func (d *decoder) each(r protocol.RecordReader, f func(*protocol.Record) error) error {
	for {
		record, err := r.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && record.Offset >= d.next {
			d.next = record.Offset + 1
			err = f(record)
		}
		if err != nil {
			return fmt.Errorf("decode a record batch: %w", err)
		}
		closeBytes(record.Key)
		closeBytes(record.Value)
	}
}

func (d *decoder) add(r *protocol.Record) error {
	key, err := d.copy(r.Key)
	if err != nil {
		return err
	}
	value, err := d.copy(r.Value)
	if err != nil {
		return err
	}
	stamp, brokers := d.stamps[d.base]
	if !brokers {
		stamp = r.Time.UnixMilli()
	}
	var headers dedup.Headers
	if len(r.Headers) > 0 {
		headers = d.headers.take(len(r.Headers))
		for i, h := range r.Headers {
			headers[i] = dedup.Header(h)
		}
	}
	d.batch.messages = append(d.batch.messages, dedup.Message{
		Topic:     d.source.topic,
		Key:       key,
		Value:     value,
		Headers:   headers,
		Position:  dedup.Position{Source: d.source.topic, Partition: d.source.partition, Offset: r.Offset},
		Published: msg.Millis(stamp),
		Since:     d.source.since,
	})
	return nil
}

// copy takes bytes out of the client library's pages, which are then used again.
// A null stays nil, and an empty value empty.
func (d *decoder) copy(b protocol.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	p := d.bytes.take(b.Len())
	_, err := io.ReadFull(b, p)
	return p, err
}

func closeBytes(b protocol.Bytes) {
	if b != nil {
		_ = b.Close()
	}
}

// arena hands out slices cut from larger ones, to allocate once for many. The
// larger ones grow with what is asked for, so that one small message costs little.
type arena[T any] struct {
	free  []T
	chunk int
}

const (
	firstChunk = 64
	lastChunk  = 8192
)

func (a *arena[T]) take(n int) []T {
	if a.free == nil || len(a.free) < n {
		a.chunk = min(max(2*a.chunk, firstChunk), lastChunk)
		a.free = make([]T, max(n, a.chunk))
	}
	p := a.free[:n:n]
	a.free = a.free[n:]
	return p
}
