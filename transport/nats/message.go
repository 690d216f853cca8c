package natstransport

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/transport/internal/msg"
)

// Message converts a delivery of JetStream. It is for programs with a loop of their own. It
// returns an error if m was not delivered by JetStream.
//
// Topic is the subject. Position is the stream and the sequence number in it. Key is nil.
// The headers are sorted by name, because the client library keeps them in a map. The values of
// one name keep their order. Value is not copied. Raw is m.
func Message(m jetstream.Msg) (*dedup.Message, error) {
	if m == nil {
		return nil, errors.New("natstransport: no message")
	}
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("natstransport: a message on %s is no delivery of JetStream: %w", m.Subject(), err)
	}
	d := &dedup.Message{
		Topic:     m.Subject(),
		Value:     m.Data(),
		Headers:   headers(m.Headers()),
		Position:  dedup.Position{Source: meta.Stream, Offset: int64(meta.Sequence.Stream)},
		Published: msg.Published(meta.Timestamp),
		Delivery:  int(meta.NumDelivered),
		Raw:       m,
	}
	return d, nil
}

// fill is Message for what a Consumer receives. It returns the number that the
// consumer gave this delivery.
func fill(d *dedup.Message, m *nats.Msg) (sequence uint64, err error) {
	meta, err := m.Metadata()
	if err != nil {
		return 0, err
	}
	d.Topic = m.Subject
	d.Value = m.Data
	d.Headers = headers(m.Header)
	d.Position = dedup.Position{Source: meta.Stream, Offset: int64(meta.Sequence.Stream)}
	d.Published = msg.Published(meta.Timestamp)
	d.Delivery = int(meta.NumDelivered)
	return meta.Sequence.Consumer, nil
}

func headers(h nats.Header) dedup.Headers {
	if len(h) == 0 {
		return nil
	}
	out := make(dedup.Headers, 0, len(h))
	add := func(name string) {
		for _, value := range h[name] {
			out = append(out, dedup.Header{Key: name, Value: []byte(value)})
		}
	}
	if len(h) == 1 {
		for name := range h {
			add(name)
		}
		return out
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		add(name)
	}
	return out
}
