//go:build real

package kafkatransport

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/oncequeue/oncequeue/dedup"
)

// TestRealQuotaOnlySlows: a quota far below the load, so that single pauses are
// longer than Timeout. Every message is written once.
func TestRealQuotaOnlySlows(t *testing.T) {
	t.Parallel()
	c := realCluster(t)
	topic := c.newTopic(1, nil)
	id := "quota-" + topic
	entity := kadm.ClientQuotaEntity{{Type: "client-id", Name: &id}}
	set := func(op kadm.AlterClientQuotaOp) {
		res, err := c.adm.AlterClientQuotas(c.ctx(), []kadm.AlterClientQuotaEntry{{Entity: entity, Ops: []kadm.AlterClientQuotaOp{op}}})
		c.must(err)
		for _, r := range res {
			c.must(r.Err)
		}
	}
	set(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Value: 50_000})
	defer set(kadm.AlterClientQuotaOp{Key: "producer_byte_rate", Remove: true})
	s, err := NewSink(c.Addrs(), topic, &SinkConfig{ClientID: id, Timeout: 2 * time.Second})
	c.must(err)
	defer s.Close()
	const n = 60
	begin := time.Now()
	for sent := 0; sent < n; {
		ms := make([]*dedup.Message, min(10, n-sent))
		for i := range ms {
			ms[i] = &dedup.Message{Value: make([]byte, 20_000)}
		}
		for i, err := range s.Publish(t.Context(), ms) {
			if err != nil {
				t.Errorf("message %d: %v", sent+i, err)
			}
		}
		sent += len(ms)
	}
	t.Logf("%d messages in %v", n, time.Since(begin).Round(time.Millisecond))
	if got := c.ends(topic)[0]; got != n {
		t.Errorf("got %d messages in the topic, want %d", got, n)
	}
}

// TestRealAppendTimeCounts: the producer's clock says 1970, and the broker stamps.
func TestRealAppendTimeCounts(t *testing.T) {
	t.Parallel()
	c := realCluster(t)
	topic := c.newTopic(1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	s, err := NewSink(c.Addrs(), topic, nil)
	c.must(err)
	defer s.Close()
	before := time.Now().Add(-time.Minute)
	for range 3 {
		ms := []*dedup.Message{{Value: []byte("a"), Published: time.UnixMilli(300_000)}, {Value: []byte("b"), Published: time.UnixMilli(0)}}
		for i, m := range ms {
			m.Headers.SetKey(dedup.Key(append(m.Value, time.Now().String()...)))
			ms[i] = m
		}
		for _, err := range s.Publish(t.Context(), ms) {
			c.must(err)
		}
	}
	src := source{topic: topic, maxWait: 100 * time.Millisecond, patience: time.Second, maxBytes: 1 << 20}
	b, err := src.fetch(t.Context(), s.link, 0)
	c.must(err)
	if len(b.messages) != 6 {
		t.Errorf("got %d messages, want 6", len(b.messages))
	}
	for _, m := range b.messages {
		if m.Published.Before(before) || m.Published.After(time.Now().Add(time.Minute)) {
			t.Errorf("%v: got published %v, want the broker's time", m.Position, m.Published)
		}
	}
}

// TestRealCheckPasses: a cluster without access control misses no right.
func TestRealCheckPasses(t *testing.T) {
	t.Parallel()
	c := realCluster(t)
	topic := c.newTopic(1, nil)
	consumer, err := NewConsumer(c.Addrs(), "g-"+topic, []string{topic}, nil)
	c.must(err)
	c.must(consumer.Check(t.Context()))
	s, err := NewSink(c.Addrs(), topic, nil)
	c.must(err)
	defer s.Close()
	c.must(s.Check(t.Context()))
}
