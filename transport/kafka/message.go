package kafkatransport

import (
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
)

// Message converts a message that kafka-go has read. It is for programs with a read loop of
// their own. Key, Value and the values of the headers are not copied. Raw is m.
func Message(m *kafka.Message) *dedup.Message {
	d := &dedup.Message{
		Topic:     m.Topic,
		Key:       m.Key,
		Value:     m.Value,
		Position:  dedup.Position{Source: m.Topic, Partition: int32(m.Partition), Offset: m.Offset},
		Published: published(m.Time),
		Raw:       m,
	}
	if len(m.Headers) > 0 {
		d.Headers = make(dedup.Headers, len(m.Headers))
		for i, h := range m.Headers {
			d.Headers[i] = dedup.Header(h)
		}
	}
	return d
}

// published returns the timestamp t as it is: by it a message is known again. The
// producer's clock may be ahead of ours. Kafka says "no timestamp" with -1.
func published(t time.Time) time.Time {
	if t.UnixMilli() <= 0 {
		return time.Time{}
	}
	return t
}
