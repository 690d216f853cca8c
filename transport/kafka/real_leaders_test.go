//go:build real

package kafkatransport

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// TestRealLeadersMove: an operator moves all partitions between the nodes, again and
// again, while a Sink writes and a Consumer reads. What is not confirmed is written
// again; nothing is in the topic twice but what the Sink was in doubt about. The log
// has how long a move was felt.
func TestRealLeadersMove(t *testing.T) {
	t.Parallel()
	c := realCluster(t)
	if len(c.addrs) < 3 {
		missing(t, "there are fewer than 3 brokers: run make test-real")
	}
	const partitions, keys, each, rounds = 6, 60, 60, 4
	topic := c.newTopic(partitions, nil)
	group := "g-" + topic
	sink := newSinkTo(t, c.addrs, topic, nil)
	j := newJournal()
	var slowest atomic.Int64 // from the first try to write to the handler
	consumer, d := newConsumer(t, c, group, c.config(), topic), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return consumer.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			for age := int64(time.Since(m.Published)); ; {
				was := slowest.Load()
				if age <= was || slowest.CompareAndSwap(was, age) {
					return j.handle(ctx, m)
				}
			}
		})
	})

	var produced, again, doubtful atomic.Int64
	slowestCall := time.Duration(0)
	writer := start(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			ms := make([]*dedup.Message, each)
			for i := range ms {
				n := int(produced.Load()) + i
				ms[i] = &dedup.Message{Key: fmt.Appendf(nil, "k%d", n%keys), Value: fmt.Append(nil, n), Published: time.Now()}
				ms[i].Headers.SetKey(dedup.Key(fmt.Sprint(n)))
			}
			began := time.Now()
			for left := ms; len(left) > 0; { // in their order, so that each key keeps its own
				var failed []*dedup.Message
				for i, err := range sink.Publish(context.WithoutCancel(ctx), left) {
					if driver.IsPermanent(err) {
						return err
					}
					if err != nil {
						again.Add(1)
						if effect(t, err) == "maybe done" {
							doubtful.Add(1)
						}
						failed = append(failed, left[i])
					}
				}
				left = failed
			}
			slowestCall = max(slowestCall, time.Since(began))
			produced.Add(each)
		}
		return nil
	})
	consumed := func() bool { return j.seen() >= int(produced.Load()) && produced.Load() > 0 }
	eventually(t, "messages flow", consumed)
	for round := range rounds {
		c.move(topic, func(p int32) []int32 { return []int32{(p+int32(round))%3 + 1, (p+int32(round)+1)%3 + 1} })
		mark := int(produced.Load()) + 5*each
		eventually(t, "messages flow after the move", func() bool { return j.seen() > mark })
	}
	if err := writer.Stop(); err != nil {
		t.Errorf("Publish: %v", err)
	}
	eventually(t, "all is consumed", consumed)
	c.awaitCommitted(group, topic)
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, int(produced.Load()))
	var written int64
	for _, end := range c.ends(topic) {
		written += end
	}
	if twice := written - produced.Load(); twice < 0 || twice > doubtful.Load() {
		t.Errorf("got %d messages written twice, want no more than the %d that the sink was in doubt about", twice, doubtful.Load())
	}
	t.Logf("%d moves of %d partitions; %d messages, %d written again, %d of them in doubt, %d twice; the longest call took %v, the longest way to a handler %v",
		rounds, partitions, produced.Load(), again.Load(), doubtful.Load(), written-produced.Load(), slowestCall, time.Duration(slowest.Load()))
}

// move gives each partition the replicas that it is told, and waits until the first
// of them leads.
func (c *cluster) move(topic string, replicas func(partition int32) []int32) {
	c.t.Helper()
	m, err := c.adm.Metadata(c.ctx(), topic)
	c.must(err)
	var req kadm.AlterPartitionAssignmentsReq
	var all kadm.TopicsSet
	for p := range m.Topics[topic].Partitions {
		req.Assign(topic, p, replicas(p))
		all.Add(topic, p)
	}
	res, err := c.adm.AlterPartitionAssignments(c.ctx(), req)
	c.must(err)
	c.must(res.Error())
	eventually(c.t, "the replicas have moved", func() bool {
		m, err := c.adm.Metadata(c.ctx(), topic)
		moved := err == nil
		for p, d := range m.Topics[topic].Partitions {
			moved = moved && slices.Equal(d.Replicas, replicas(p)) && len(d.ISR) == len(d.Replicas)
		}
		return moved
	})
	eventually(c.t, "the first of them lead", func() bool {
		_, err := c.adm.ElectLeaders(c.ctx(), kadm.ElectPreferredReplica, all) // an error: it leads, or cannot yet
		m, merr := c.adm.Metadata(c.ctx(), topic)
		led := err == nil && merr == nil
		for p, d := range m.Topics[topic].Partitions {
			led = led && d.Leader == replicas(p)[0]
		}
		return led
	})
}
