package natstransport

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

var extremes = []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64}

// numbersOf returns the exported fields of a config that are numbers.
func numbersOf(config any) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	v := reflect.ValueOf(config).Elem()
	for i := range v.NumField() {
		if f := v.Type().Field(i); f.IsExported() && f.Type.Kind() == reflect.Int || f.Type == reflect.TypeFor[time.Duration]() && f.IsExported() {
			fields[f.Name] = v.Field(i)
		}
	}
	return fields
}

// Every number is refused with a line that names it, or a consumer works with it.
func TestExtremeConfig(t *testing.T) {
	for name := range numbersOf(new(Config)) {
		for _, n := range extremes {
			t.Run(fmt.Sprint(name, "=", n), func(t *testing.T) {
				c := quick(t)
				numbersOf(c)[name].SetInt(n)
				if _, err := c.filled(); err != nil {
					if !strings.HasPrefix(err.Error(), "natstransport: "+name) {
						t.Errorf("got error %v, which does not name it", err)
					}
					return
				}
				js := connect(t, brokertest.NewNATS(t, nil))
				newStream(t, js, patiently)
				publish(t, js, 0, 20)
				consumer, d, j := newConsumer(t, js, c), newDeduplicator(t, nil), newJournal()
				r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) })
				answered(t, js)
				if err := r.Stop(); err != nil {
					t.Error(err)
				}
				j.check(t, 20)
			})
		}
	}
}

func TestExtremeSinkConfig(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	for name := range numbersOf(new(SinkConfig)) {
		for _, n := range extremes {
			c := &SinkConfig{}
			numbersOf(c)[name].SetInt(n)
			var log countingHandler
			c.Logger = slog.New(&log)
			s, err := NewSink(js, "s.sink", c)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "natstransport: "+name) {
					t.Errorf("%s=%d: got error %v, which does not name it", name, n, err)
				}
				continue
			}
			if name == "Redelivery" {
				if err := s.Check(t.Context()); err != nil {
					t.Errorf("%s=%d: Check: %v", name, n, err)
				}
				if short := log.count("the duplicate window of the stream is short") > 0; short != (3*time.Duration(n) > 2*time.Minute) {
					t.Errorf("%s=%d: the duplicate window of two minutes was found short: %v", name, n, short)
				}
			}
			if name != "Timeout" || time.Duration(n) > time.Second || n == 0 { // else no server answers in time
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

func TestExtremeReplyConfig(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	for name := range numbersOf(new(ReplyConfig)) {
		for _, n := range extremes {
			c := &ReplyConfig{}
			numbersOf(c)[name].SetInt(n)
			r, err := NewReply(conn, newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) { return []byte("reply"), nil }, c)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "natstransport: "+name) {
					t.Errorf("%s=%d: got error %v, which does not name it", name, n, err)
				}
				continue
			}
			sub, err := conn.QueueSubscribe("ask", "q", r.Msg)
			if err != nil {
				t.Fatal(err)
			}
			m := jetstreamMessage("ask", fmt.Sprint(name, n))
			if reply, err := conn.RequestMsg(m, time.Minute); err != nil || string(reply.Data) != "reply" {
				t.Errorf("%s=%d: got %v, %v", name, n, reply, err)
			}
			if err := sub.Unsubscribe(); err != nil {
				t.Error(err)
			}
			if err := r.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}
