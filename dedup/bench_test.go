package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// BenchmarkDo is what a message costs through Do, with a store in memory and a
// handler that does nothing.
func BenchmarkDo(b *testing.B) {
	for _, callers := range []int{1, 256} {
		b.Run(fmt.Sprint("callers=", callers), func(b *testing.B) {
			d, err := dedup.New(memstore.New(nil), "orders", dedup.PositionKey(), nil)
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			b.ReportAllocs()
			b.ResetTimer()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						m := &dedup.Message{Topic: "orders", Value: []byte("v"), Position: dedup.Position{Source: "orders", Offset: n}}
						if r := d.Do(ctx, m, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }); r.Outcome != dedup.Processed {
							b.Errorf("got %v, %v, want processed", r.Outcome, r.Err)
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			if err := d.Shutdown(b.Context()); err != nil {
				b.Error(err)
			}
		})
	}
}
