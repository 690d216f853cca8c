package kafkatransport

import (
	"fmt"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchapi "github.com/segmentio/kafka-go/protocol/fetch"

	"github.com/oncequeue/oncequeue/dedup"
)

// records makes a reader of records with the offsets; their values are the offsets.
func records(offsets ...int64) protocol.RecordReader {
	var rs []protocol.Record
	for _, o := range offsets {
		rs = append(rs, protocol.Record{Offset: o, Value: protocol.NewBytes(fmt.Append(nil, o)), Time: time.Now()})
	}
	return protocol.NewRecordReader(rs...)
}

func data(base, producer int64, offsets ...int64) protocol.RecordReader {
	b := &protocol.RecordBatch{BaseOffset: base, ProducerID: producer, Records: records(offsets...)}
	if producer >= 0 {
		b.Attributes = protocol.Transactional
	}
	return b
}

func marker(offset, producer int64, kind int16) protocol.RecordReader {
	b := protocol.NewControlBatch(protocol.ControlRecord{Offset: offset, Type: kind})
	b.BaseOffset, b.ProducerID, b.Attributes = offset, producer, protocol.Control|protocol.Transactional
	return b
}

const (
	abort  = 0
	commit = 1
)

func TestDecode(t *testing.T) {
	none := int64(-1)
	for _, x := range []struct {
		name    string
		offset  int64
		batches []protocol.RecordReader
		aborted []fetchapi.ResponseTransaction
		want    []int64
		next    int64
	}{
		{name: "nothing new", offset: 7, next: 7},
		{name: "records", offset: 3, batches: []protocol.RecordReader{data(3, none, 3, 4), data(5, none, 5)}, want: []int64{3, 4, 5}, next: 6},
		{name: "batch that begins before", offset: 4, batches: []protocol.RecordReader{data(2, none, 2, 3, 4)}, want: []int64{4}, next: 5},
		{name: "holes", offset: 0, batches: []protocol.RecordReader{data(0, none, 2, 9)}, want: []int64{2, 9}, next: 10},
		{name: "empty batch", offset: 5, batches: []protocol.RecordReader{data(5, none)}, next: 6},
		{name: "empty batch that begins before", offset: 5, batches: []protocol.RecordReader{data(2, none)}, next: 6},
		{name: "empty batches", offset: 5, batches: []protocol.RecordReader{data(5, none), data(50, none)}, next: 51},
		{name: "marker alone", offset: 5, batches: []protocol.RecordReader{marker(5, 1, commit)}, next: 6},
		{name: "committed", offset: 0, batches: []protocol.RecordReader{data(0, 1, 0, 1), marker(2, 1, commit)}, want: []int64{0, 1}, next: 3},
		{
			name: "aborted, then committed, interleaved with others", offset: 0,
			batches: []protocol.RecordReader{data(0, 1, 0), data(1, 2, 1), data(2, none, 2), data(3, 1, 3), marker(4, 1, abort), data(5, 1, 5), marker(6, 2, commit), marker(7, 1, commit)},
			aborted: []fetchapi.ResponseTransaction{{ProducerID: 1, FirstOffset: 0}},
			want:    []int64{1, 2, 5}, next: 8,
		},
		{
			name: "aborted transaction that began in an earlier fetch", offset: 10,
			batches: []protocol.RecordReader{data(10, 1, 10, 11), marker(12, 1, abort), data(13, 1, 13)},
			aborted: []fetchapi.ResponseTransaction{{ProducerID: 1, FirstOffset: 2}},
			want:    []int64{13}, next: 14,
		},
		{
			name: "two aborted transactions of one producer", offset: 0,
			batches: []protocol.RecordReader{data(0, 1, 0), marker(1, 1, abort), data(2, 1, 2), marker(3, 1, abort), data(4, 1, 4)},
			aborted: []fetchapi.ResponseTransaction{{ProducerID: 1, FirstOffset: 0}, {ProducerID: 1, FirstOffset: 2}},
			want:    []int64{4}, next: 5,
		},
		{
			name: "aborted transactions of two producers, listed as they ended", offset: 0,
			batches: []protocol.RecordReader{data(0, 2, 0), data(1, 1, 1), marker(2, 1, abort), data(3, 2, 3), marker(4, 2, abort), data(5, 2, 5)},
			aborted: []fetchapi.ResponseTransaction{{ProducerID: 1, FirstOffset: 1}, {ProducerID: 2, FirstOffset: 0}},
			want:    []int64{5}, next: 6,
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := &fetchapi.ResponsePartition{AbortedTransactions: x.aborted}
			if x.batches != nil {
				p.RecordSet.Records = &protocol.RecordStream{Records: x.batches}
			}
			s := source{topic: "t", partition: 4}
			b, err := s.decode(p, x.offset, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, m := range b.messages {
				got = append(got, m.Position.Offset)
				if string(m.Value) != fmt.Sprint(m.Position.Offset) {
					t.Errorf("offset %d: got value %q", m.Position.Offset, m.Value)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(x.want) || b.next != x.next {
				t.Errorf("got offsets %v and next %d, want %v and %d", got, b.next, x.want, x.next)
			}
		})
	}
}

func TestMessageOfOwnLoop(t *testing.T) {
	stamp := time.Now().Add(-time.Minute)
	m := &kafka.Message{
		Topic: "t", Partition: 3, Offset: 9, Key: []byte("k"), Value: []byte("v"), Time: stamp,
		Headers: []kafka.Header{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}},
	}
	d := Message(m)
	want := dedup.Position{Source: "t", Partition: 3, Offset: 9}
	if d.Position != want || d.Topic != "t" || string(d.Key) != "k" || string(d.Value) != "v" || !d.Published.Equal(stamp) || d.Raw != m {
		t.Errorf("got %+v", d)
	}
	if len(d.Headers) != 2 || string(d.Headers[0].Value) != "1" || d.Headers[1].Value != nil {
		t.Errorf("got headers %v", d.Headers)
	}
	if d := Message(&kafka.Message{}); d.Key != nil || d.Headers != nil || !d.Published.IsZero() {
		t.Errorf("empty message: got %+v", d)
	}
}
