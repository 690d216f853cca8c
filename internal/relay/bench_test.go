package relay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// BenchmarkRelay relays b.N messages of 100 bytes from one Kafka topic to another,
// a fifth of them duplicates; off is the same relay without claims. The broker runs
// in this process.
func BenchmarkRelay(b *testing.B) {
	off := func(*dedup.Message) (dedup.Key, error) { return "", dedup.ErrNoKey }
	for name, change := range map[string]func(*Config){
		"bolt": func(c *Config) { c.Store = StoreURL{Kind: "bolt", Dir: b.TempDir()} },
		"off":  func(c *Config) { c.Key, c.OnUnkeyed = off, dedup.PolicyProcess },
	} {
		b.Run(name, func(b *testing.B) {
			k := brokertest.NewKafka(b, map[string]int32{"orders": 6, "orders.once": 6}, nil)
			random := rand.New(rand.NewPCG(1, 2))
			value := []byte(strings.Repeat("x", 100))
			var records []*kgo.Record
			produce := func() {
				if err := k.Produce(b.Context(), false, records...); err != nil {
					b.Fatal(err)
				}
				records = records[:0]
			}
			for i := range b.N {
				if i > 0 && random.IntN(5) == 0 {
					i = random.IntN(i)
				}
				id := fmt.Appendf(nil, "%036d", i)
				records = append(records, &kgo.Record{Topic: "orders", Key: id, Value: value, Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: id}}})
				if len(records) == 10_000 {
					produce()
				}
			}
			produce()
			c := Config{
				From:  Endpoint{Kind: Kafka, Hosts: k.Addrs(), Topic: "orders", Group: "g"},
				To:    Endpoint{Kind: Kafka, Hosts: k.Addrs(), Topic: "orders.once"},
				Store: StoreURL{Kind: "mem"}, Key: dedup.HeaderKey(), VouchFrom: time.Unix(0, 0),
			}
			change(&c)
			r, err := Open(b.Context(), c)
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			done := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { done <- r.Run(ctx) }()
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for { // not until all is committed: that comes once in a second
				<-tick.C
				if s := r.Summary(); s.Relayed+s.Duplicates >= int64(b.N) {
					break
				}
			}
			b.StopTimer()
			stop()
			if err := <-done; err != nil {
				b.Error(err)
			}
			if err := r.Close(); err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}
