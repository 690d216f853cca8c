package kafkatransport

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// stamps are what producers with odd clocks write: a microsecond or nanosecond instead of
// a millisecond, a clock that was never set, none, and what no clock says.
var stamps = []int64{1_700_000_000_123, 1_796_044_698_682_000, 1_796_044_698_682_000_000, 0, 300_000, -1, -2, -1_927_664_617_826, math.MaxInt64 / 2}

// TestOddTimestampsAreExact: the Sink writes what the Consumer read, for every number that
// Kafka takes, with and without compression.
func TestOddTimestampsAreExact(t *testing.T) {
	for _, compression := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		t.Run(fmt.Sprint(compression), func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"source": 1, "target": 1}, nil)
			all := make([]*dedup.Message, len(stamps))
			for i, ms := range stamps {
				all[i] = &dedup.Message{Value: fmt.Append(nil, ms), Position: dedup.Position{Source: "source"}, Headers: dedup.Headers{{Key: "null"}, {Key: "empty", Value: []byte{}}}}
				all[i].Headers.SetKey(dedup.Key(all[i].Value))
				if ms != -1 {
					all[i].Published = time.UnixMilli(ms)
				}
			}
			publish := func(topic string, ms ...*dedup.Message) {
				s, err := NewSink(k.Addrs(), topic, &SinkConfig{Compression: compression})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for i, err := range s.Publish(t.Context(), ms) {
					if err != nil {
						t.Errorf("%s: message %d: %v", topic, i, err)
					}
				}
			}
			publish("source", all...)
			consume(t, k, "source", func(m *dedup.Message) { publish("target", m) })
			consume(t, k, "target", func(*dedup.Message) {})
		})
	}
}

// consume hands the messages of the topic to f, and wants their timestamps to be what
// their values say.
func consume(t *testing.T, k *brokertest.Kafka, topic string, f func(*dedup.Message)) {
	t.Helper()
	var n atomic.Int64
	c, d := newConsumer(t, k, "g-"+topic, quick(t), topic), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if h := m.Headers; len(h) != 3 || h[0].Value != nil || h[1].Value == nil {
				t.Errorf("%s: %s: got headers %q", topic, m.Value, h)
			}
			got := int64(noTimestamp)
			if !m.Published.IsZero() {
				got = m.Published.UnixMilli()
			}
			if fmt.Sprint(got) != string(m.Value) {
				t.Errorf("%s: got timestamp %d, want %s", topic, got, m.Value)
			}
			f(m)
			n.Add(1)
			return nil, nil
		})
	})
	eventually(t, "all are handled", func() bool { return n.Load() == int64(len(stamps)) })
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// A message that was made here, and not read from a broker, has the time of its writing.
func TestMessageWithoutTimestampGetsNow(t *testing.T) {
	now := time.Now()
	if got := stampOf(&dedup.Message{}, now); got != now.UnixMilli() {
		t.Errorf("got %d, want %d", got, now.UnixMilli())
	}
	if got := stampOf(&dedup.Message{Position: dedup.Position{Source: "t"}}, now); got != noTimestamp {
		t.Errorf("read without a timestamp: got %d, want %d", got, noTimestamp)
	}
}

// TestAppendTimesAreTheBrokers reads the timestamps of whole batches from answers of all
// versions, and is not led astray by damage.
func TestAppendTimesAreTheBrokers(t *testing.T) {
	be := binary.BigEndian
	batch := func(base int64, appendTime bool, stamp int64) []byte {
		b, err := encodeBatch([]*dedup.Message{{Value: []byte("v"), Published: time.UnixMilli(1)}}, []int{0}, 0, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b = b[4:]
		be.PutUint64(b, uint64(base))
		if appendTime {
			be.PutUint16(b[21:], 1<<3)
			be.PutUint64(b[35:], uint64(stamp))
		}
		return b
	}
	answer := func(version int16) []byte {
		var b []byte
		if version >= 1 {
			b = append(b, make([]byte, 4)...)
		}
		if version >= 7 {
			b = append(b, make([]byte, 6)...)
		}
		b = be.AppendUint32(b, 1)
		b = append(be.AppendUint16(b, 1), 't')
		b = be.AppendUint32(b, 1)
		b = append(b, make([]byte, 4+2+8)...)
		if version >= 4 {
			b = append(b, make([]byte, 8)...)
		}
		if version >= 5 {
			b = append(b, make([]byte, 8)...)
		}
		if version >= 4 {
			b = append(be.AppendUint32(b, 2), make([]byte, 32)...)
		}
		if version >= 11 {
			b = append(b, make([]byte, 4)...)
		}
		records := append(batch(5, true, 1_700_000_000_000), batch(6, false, 0)...)
		records = append(records, batch(9, true, 1_700_000_000_500)...)
		b = be.AppendUint32(b, uint32(len(records)))
		return append(b, records...)
	}
	want := map[int64]int64{5: 1_700_000_000_000, 9: 1_700_000_000_500}
	for version := range int16(12) {
		b := answer(version)
		if got := appendTimes(b, version); !maps.Equal(got, want) {
			t.Errorf("version %d: got %v, want %v", version, got, want)
		}
		for n := range b {
			appendTimes(b[:n], version) // must not panic
		}
	}
	if got := appendTimes(be.AppendUint32(make([]byte, 10), math.MaxUint32), 11); got != nil {
		t.Errorf("no topics: got %v", got)
	}
}
