package kafkatransport

import (
	"context"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

var extremes = []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, int64(time.Millisecond), math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64}

// numbersOf returns the exported fields of a config that are numbers.
func numbersOf(config any) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	v := reflect.ValueOf(config).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if number := f.Type.Kind() == reflect.Int || f.Type == reflect.TypeFor[time.Duration]() || f.Name == "MaxAhead"; number && f.IsExported() {
			fields[f.Name] = v.Field(i)
		}
	}
	return fields
}

// Every number is refused with a line that names it, or a consumer works with it.
func TestExtremeConfig(t *testing.T) {
	topics := map[string]int32{}
	for name := range numbersOf(new(Config)) {
		for i := range extremes {
			topics[fmt.Sprint(name, i)] = 2
		}
	}
	k := brokertest.NewKafka(t, topics, nil)
	for name := range numbersOf(new(Config)) {
		for i, n := range extremes {
			t.Run(fmt.Sprint(name, "=", n), func(t *testing.T) {
				c := quick(t)
				numbersOf(c)[name].SetInt(n)
				topic := fmt.Sprint(name, i)
				consumer, err := NewConsumer(k.Addrs(), topic, []string{topic}, c)
				if err != nil {
					if !strings.HasPrefix(err.Error(), "kafkatransport: ") || !strings.Contains(err.Error(), name) {
						t.Errorf("got error %v, which does not name %s", err, name)
					}
					return
				}
				produce(t, k, numbered(topic, 0, 20, 5)...)
				d := newDeduplicator(t, nil)
				var runs atomic.Int32
				r := start(t, func(ctx context.Context) error {
					return consumer.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) { runs.Add(1); return nil, nil })
				})
				eventually(t, "all is processed, or Run has ended", func() bool {
					select {
					case <-r.Done:
						return true
					default:
						return runs.Load() == 20
					}
				})
				switch err := r.Stop(); {
				case err != nil && !strings.Contains(err.Error(), name): // brokers refuse some
					t.Error(err)
				case err == nil && !complete(k, topic, topic):
					t.Error("not all is committed")
				}
			})
		}
	}
}

func TestExtremeSinkConfig(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	for name := range numbersOf(new(SinkConfig)) {
		for _, n := range extremes {
			c := &SinkConfig{}
			numbersOf(c)[name].SetInt(n)
			s, err := NewSink(k.Addrs(), "t", c)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "kafkatransport: "+name) {
					t.Errorf("%s=%d: got error %v, which does not name it", name, n, err)
				}
				continue
			}
			if name != "Timeout" || time.Duration(n) > time.Second || n == 0 { // else no broker answers in time
				for _, err := range s.Publish(t.Context(), []*dedup.Message{{Value: []byte("v")}, {Value: []byte("w")}}) {
					if err != nil {
						t.Errorf("%s=%d: got error %v", name, n, err)
					}
				}
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
