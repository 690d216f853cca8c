package kafkatransport

import (
	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
)

// Message converts a message that kafka-go has read. It is for programs with a read loop of
// their own. Key, Value and the values of the headers are not copied. Raw is m.
//
// Published is the producer's timestamp, even if the topic has
// message.timestamp.type=LogAppendTime: kafka-go does not hand over the broker's.
func Message(m *kafka.Message) *dedup.Message {
	d := &dedup.Message{
		Topic:     m.Topic,
		Key:       m.Key,
		Value:     m.Value,
		Position:  dedup.Position{Source: m.Topic, Partition: int32(m.Partition), Offset: m.Offset},
		Published: msg.Published(m.Time),
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
