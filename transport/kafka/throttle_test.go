package kafkatransport

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestThrottleWaitsAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		th := throttle{log: slog.New(slog.NewTextHandler(&log, nil))}
		begin := time.Now()
		th.asked(1, 10*time.Second)
		th.asked(1, time.Second) // of an earlier answer
		if !th.wait(t.Context(), 2) || time.Since(begin) != 0 {
			t.Errorf("another broker: got a wait of %v", time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if th.wait(ctx, 1) || time.Since(begin) != time.Second {
			t.Errorf("the call was given up: got a wait of %v, want 1s", time.Since(begin))
		}
		if !th.wait(t.Context(), 1) || time.Since(begin) != 10*time.Second {
			t.Errorf("got a wait of %v, want 10s", time.Since(begin))
		}
		if got := strings.Count(log.String(), "throttles this client"); got != 1 {
			t.Errorf("got %d lines, want 1:\n%s", got, log.String())
		}
	})
}

// TestQuotaOnlySlows: a broker asks for pauses that are longer than Timeout, and does not
// answer before they are over. Nothing is sent meanwhile, and nothing is in doubt.
func TestQuotaOnlySlows(t *testing.T) {
	const pause = 700 * time.Millisecond
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	var until atomic.Int64
	var early atomic.Int64
	k.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		now := time.Now()
		if now.UnixNano() < until.Load() {
			early.Add(1)
		}
		until.Store(now.Add(pause).UnixNano())
		req := r.(*kmsg.ProduceRequest)
		res := req.ResponseKind().(*kmsg.ProduceResponse)
		res.ThrottleMillis = int32(pause.Milliseconds())
		st := kmsg.NewProduceResponseTopic()
		st.Topic = "t"
		st.Partitions = append(st.Partitions, kmsg.NewProduceResponseTopicPartition())
		res.Topics = append(res.Topics, st)
		return res, nil, true
	})
	s, err := NewSink(k.Addrs(), "t", &SinkConfig{Timeout: pause / 2})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	begin := time.Now()
	for i := range 3 {
		if err := s.Publish(t.Context(), []*dedup.Message{{Value: []byte("v")}})[0]; err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if took := time.Since(begin); took < 2*pause || early.Load() > 0 {
		t.Errorf("got 3 requests in %v, %d of them too early, want two pauses of %v", took, early.Load(), pause)
	}
}

// TestMissingRightsAreNamed: Check names the right, and so does what fails later.
func TestMissingRightsAreNamed(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	var topicRights, group atomic.Int32
	topicRights.Store(1<<read | 1<<write | 1<<describe)
	cluster := k.Cluster()
	cluster.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req := r.(*kmsg.MetadataRequest)
		if !req.IncludeTopicAuthorizedOperations {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.MetadataResponse)
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic, topic.AuthorizedOperations = req.Topics[0].Topic, topicRights.Load()
		if topicRights.Load() == 0 {
			topic.ErrorCode = kerr.TopicAuthorizationFailed.Code
		}
		res.Topics = append(res.Topics, topic)
		return res, nil, true
	})
	cluster.ControlKey(int16(kmsg.Heartbeat), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		res := r.(*kmsg.HeartbeatRequest).ResponseKind().(*kmsg.HeartbeatResponse)
		res.ErrorCode = int16(group.Load())
		return res, nil, group.Load() != 0
	})
	c, err := NewConsumer(k.Addrs(), "billing", []string{"t"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSink(k.Addrs(), "t", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, x := range []struct {
		topic, group   int32
		consumer, sink []string // in the errors; none: there is none
	}{
		{topic: 1<<read | 1<<write | 1<<describe},
		{topic: 1<<write | 1<<describe, consumer: []string{"READ", `"t"`}},
		{topic: 1<<read | 1<<describe, sink: []string{"WRITE", `"t"`}},
		{topic: 0, consumer: []string{"DESCRIBE", `"t"`}, sink: []string{"DESCRIBE", `"t"`}},
		{topic: 1<<read | 1<<write, group: int32(kerr.GroupAuthorizationFailed.Code), consumer: []string{"READ on group", `"billing"`}},
	} {
		topicRights.Store(x.topic)
		group.Store(x.group)
		for who, check := range map[string]struct {
			err  error
			want []string
		}{"consumer": {c.Check(t.Context()), x.consumer}, "sink": {s.Check(t.Context()), x.sink}} {
			if check.want == nil {
				if check.err != nil {
					t.Errorf("%+v: %s: %v", x, who, check.err)
				}
				continue
			}
			if check.err == nil {
				t.Errorf("%+v: %s: got no error", x, who)
				continue
			}
			for _, w := range check.want {
				if !strings.Contains(check.err.Error(), w) {
					t.Errorf("%+v: %s: got %q, want %q in it", x, who, check.err, w)
				}
			}
		}
	}
}
