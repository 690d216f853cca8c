//go:build real

package kafkatransport_test

import (
	"bytes"
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// TestRealSink writes messages of all sizes in every compression, and reads them
// back. One that is larger than the broker takes is refused, and no other.
func TestRealSink(t *testing.T) {
	t.Parallel()
	cluster := newRealCluster(t)
	for _, compression := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		t.Run(compression.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), realDeadline)
			defer cancel()
			topic := cluster.createTopic(ctx, t)
			sink, err := kafkatransport.NewSink(cluster.brokers, topic, &kafkatransport.SinkConfig{Compression: compression})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sink.Close() }()
			random := mathrand.New(mathrand.NewPCG(1, uint64(compression)))
			noise := func(n int) []byte { // what does not compress
				b := make([]byte, n)
				for i := range b {
					b[i] = byte(random.Uint32())
				}
				return b
			}
			const small, tooLarge = 500, 250
			var ms []*dedup.Message
			add := func(value []byte) {
				m := &dedup.Message{Key: fmt.Append(nil, len(ms)%7), Value: value}
				m.Headers.SetKey(dedup.Key(fmt.Sprint(len(ms))))
				ms = append(ms, m)
			}
			for i := range small {
				if i == tooLarge {
					add(noise(1_200_000)) // max.message.bytes is 1 MiB
					continue
				}
				add(fmt.Append(nil, "small ", i))
			}
			add(noise(1_000_000))
			add(bytes.Repeat([]byte("large "), 150_000))
			for i, err := range publishAll(ctx, sink, ms) {
				switch {
				case i != tooLarge && err != nil:
					t.Fatalf("message %d of %d bytes: %v", i, len(ms[i].Value), err)
				case i == tooLarge && (!driver.IsPermanent(err) || !strings.Contains(err.Error(), "max.message.bytes")):
					t.Errorf("a message too large: got %v, want a permanent error that names max.message.bytes", err)
				}
			}
			got := consume(ctx, t, cluster.brokers, topic, len(ms)-1, nil)
			for i, m := range ms {
				switch g := got[string(m.Value)]; {
				case i == tooLarge && g != nil:
					t.Error("the message too large was written")
				case i == tooLarge:
				case g == nil:
					t.Errorf("message %d of %d bytes was not read", i, len(m.Value))
				case !bytes.Equal(g.Key, m.Key):
					t.Errorf("message %d: got key %q, want %q", i, g.Key, m.Key)
				}
			}
		})
	}
}
