//go:build real

package kafkatransport

import (
	"context"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

// Tests that work on topics of their own, and leave the nodes alone, run beside each
// other: the members that come and go take a minute.
func TestRealScenarios(t *testing.T) {
	t.Parallel()
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) { s.run(t, realCluster(t)) })
	}
}

// TestRealMembersComeGoAndAreKilled: two to four members for a minute.
func TestRealMembersComeGoAndAreKilled(t *testing.T) {
	t.Parallel()
	churn(t, realCluster(t), 4, time.Minute)
}

// TestRealIdleRunReturnsSoon: the log has how soon.
func TestRealIdleRunReturnsSoon(t *testing.T) {
	c := realCluster(t)
	topic := c.newTopic(3, nil)
	consumer, d := newConsumer(t, c, "g-"+topic, nil, topic), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, newJournal().handle) })
	eventually(t, "the partitions are fetched", func() bool {
		s := consumer.Stats()
		for _, p := range s.Partitions {
			if p.End < 0 {
				return false
			}
		}
		return len(s.Partitions) == 3
	})
	began := time.Now()
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	t.Logf("an idle Run returned %v after its context ended", time.Since(began))
}

// TestRealOutage: a broker that leads partitions and coordinates the group is killed
// and stays away for 30 s, in which the others take over; then all of them keep
// silent for longer than the session, with their connections open.
func TestRealOutage(t *testing.T) {
	c := realCluster(t)
	if c.node == nil || len(c.addrs) < 3 {
		missing(t, "KAFKA_NODE is not set, or there are fewer than 3 brokers: run make test-real")
	}
	const partitions, keys = 6, 50
	topic := c.newTopic(partitions, nil)
	group := "g-" + topic
	j := newJournal()
	config := c.config()
	log := &countingHandler{}
	config.Logger = log.logger()
	consumer, d := newConsumer(t, c, group, config, topic), newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) })
	produced := 0
	writer := c.client()
	defer writer.Close()
	// For each key the order of what was written is that of its numbers, also when a
	// write is repeated: kgo's producer is idempotent.
	write := func(n int) {
		t.Helper()
		c.must(writer.ProduceSync(c.ctx(), spread(partitions, numbered(topic, produced, n, keys))...).FirstErr())
		produced += n
	}
	consumed := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { return j.seen() == produced })
	}
	write(1000)
	consumed("all is consumed at first")

	coordinator := c.coordinator(group)
	lead := c.leads(topic, coordinator)
	t.Logf("node %d coordinates the group and leads %d partitions", coordinator, lead)
	c.nodeIs("down", coordinator)
	down := time.Now()
	eventually(t, "the others lead", func() bool { return c.leads(topic, coordinator) == 0 })
	for time.Since(down) < 30*time.Second {
		write(100)
		consumed("all is consumed while a broker is away")
		wait.For(nil, time.Second)
	}
	c.nodeIs("up", coordinator)
	c.awaitWhole(topic)
	write(100)
	consumed("all is consumed when it is back")

	for i := range c.addrs {
		c.nodeIs("pause", i+1)
	}
	wait.For(nil, 10*time.Second) // longer than the session
	for i := range c.addrs {
		c.nodeIs("resume", i+1)
	}
	c.awaitWhole(topic)
	write(100)
	consumed("all is consumed after a silence")
	c.awaitCommitted(group, topic)
	eventually(t, "all is well", func() bool { return len(consumer.Status().Failing) == 0 })
	if err := r.Stop(); err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	j.check(t, produced)
	t.Logf("%d messages; %d times something failed, %d assignments", produced, log.count("kafka fails"), consumer.Stats().Rebalances)
}

// coordinator returns the number of the group's.
func (c *cluster) coordinator(group string) int {
	c.t.Helper()
	res := c.adm.FindGroupCoordinators(c.ctx(), group)
	c.must(res.Error())
	return int(res[group].NodeID)
}

// leads returns how many partitions the node leads; -1 if nobody tells.
func (c *cluster) leads(topic string, node int) int {
	m, err := c.adm.Metadata(c.ctx(), topic)
	if err != nil {
		return -1
	}
	n := 0
	for _, p := range m.Topics[topic].Partitions {
		if int(p.Leader) == node {
			n++
		}
	}
	return n
}

// awaitWhole waits until every node is there, and in step with the topic.
func (c *cluster) awaitWhole(topic string) {
	c.t.Helper()
	eventually(c.t, "every node is back and in step", func() bool {
		m, err := c.adm.Metadata(c.ctx(), topic)
		whole := err == nil && len(m.Brokers) == len(c.addrs) && len(m.Topics[topic].Partitions) > 0
		if whole {
			for _, p := range m.Topics[topic].Partitions {
				whole = whole && p.Leader >= 0 && len(p.ISR) == len(c.addrs)
			}
		}
		return whole
	})
}
