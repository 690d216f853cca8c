package kafkatransport

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// cluster is brokers that a test works on by the protocol alone, so that it shows
// the same of kfake and of Apache Kafka.
type cluster struct {
	t     *testing.T
	addrs []string
	adm   *kadm.Client
	node  []string          // the command that stops and starts a node; nil for kfake
	fake  *brokertest.Kafka // nil for real brokers
}

func fakeCluster(t *testing.T, o *brokertest.KafkaOptions) *cluster {
	t.Helper()
	k := brokertest.NewKafka(t, nil, o)
	c := newCluster(t, k.Addrs())
	c.fake = k
	return c
}

// realCluster is what KAFKA_BROKERS names. KAFKA_NODE is a command that takes
// "down", "up", "pause" or "resume", and the number of a node, counted from 1.
func realCluster(t *testing.T) *cluster {
	t.Helper()
	list := os.Getenv("KAFKA_BROKERS")
	if list == "" {
		missing(t, "KAFKA_BROKERS is not set: run make test-real, or set it to HOST:PORT,... of your own")
	}
	c := newCluster(t, strings.Split(list, ","))
	c.node = strings.Fields(os.Getenv("KAFKA_NODE"))
	return c
}

// missing skips a test that needs what this machine lacks, which CI must have.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func newCluster(t *testing.T, addrs []string) *cluster {
	t.Helper()
	c := &cluster{t: t, addrs: addrs}
	cl := c.client()
	t.Cleanup(cl.Close)
	c.adm = kadm.NewClient(cl)
	return c
}

// Addrs returns the addresses of the brokers.
func (c *cluster) Addrs() []string { return c.addrs }

// ctx is for one request.
func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// newTopic creates a topic, with a replica on every broker, and deletes it when the
// test ends.
func (c *cluster) newTopic(partitions int32, configs map[string]string) string {
	c.t.Helper()
	topic := strings.ToLower(c.t.Name()[:min(len(c.t.Name()), 100)])
	topic = strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789", r) {
			return r
		}
		return '-'
	}, topic) + "-" + rand.Text()[:6]
	c.createTopic(topic, partitions, configs)
	c.t.Cleanup(func() { _, _ = c.adm.DeleteTopics(c.ctx(), topic) })
	return topic
}

func (c *cluster) createTopic(topic string, partitions int32, configs map[string]string) {
	c.t.Helper()
	values := make(map[string]*string)
	for k, v := range configs {
		values[k] = &v
	}
	eventually(c.t, "topic "+topic+" is created", func() bool { // one of that name may be going
		res, err := c.adm.CreateTopic(c.ctx(), partitions, -1, values, topic)
		c.must(ignore(err, res.Err))
		return res.Err == nil
	})
	eventually(c.t, "topic "+topic+" has its leaders", func() bool {
		ends, err := c.adm.ListEndOffsets(c.ctx(), topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions)
	})
}

// ignore returns err, unless it is that of the topic.
func ignore(err, ofTopic error) error {
	if ofTopic != nil {
		return nil
	}
	return err
}

func (c *cluster) deleteTopic(topic string) {
	c.t.Helper()
	_, err := c.adm.DeleteTopics(c.ctx(), topic)
	c.must(err)
}

func (c *cluster) addPartitions(topic string, to int) {
	c.t.Helper()
	res, err := c.adm.UpdatePartitions(c.ctx(), to, topic)
	c.must(err)
	c.must(res.Error())
	eventually(c.t, "the new partitions have leaders", func() bool {
		ends, err := c.adm.ListEndOffsets(c.ctx(), topic)
		return err == nil && ends.Error() == nil && len(ends[topic]) == to
	})
}

// deleteRecords moves the beginning of the partition's log, as retention does.
func (c *cluster) deleteRecords(topic string, partition int32, to int64) {
	c.t.Helper()
	offsets := make(kadm.Offsets)
	offsets.AddOffset(topic, partition, to, -1)
	res, err := c.adm.DeleteRecords(c.ctx(), offsets)
	c.must(err)
	c.must(res.Error())
}

// client returns a client whose records name their partitions.
func (c *cluster) client(more ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.addrs...), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(1 << 20), // as brokers
	}, more...)...)
	c.must(err)
	return cl
}

// produce writes the records, each to the partition that it names, by a client that
// knows nothing of how the topic was before.
func (c *cluster) produce(records ...*kgo.Record) {
	c.t.Helper()
	cl := c.client()
	defer cl.Close()
	c.must(cl.ProduceSync(c.ctx(), records...).FirstErr())
}

// spread gives the records to the partitions by their keys.
func spread(partitions int, records []*kgo.Record) []*kgo.Record {
	for _, r := range records {
		sum := 0
		for _, b := range r.Key {
			sum = 31*sum + int(b)
		}
		r.Partition = int32(sum % partitions)
	}
	return records
}

func (c *cluster) ends(topic string) map[int32]int64 {
	return offsets(c.adm.ListEndOffsets(c.ctx(), topic))[topic]
}

func offsets(l kadm.ListedOffsets, err error) map[string]map[int32]int64 {
	found := make(map[string]map[int32]int64)
	if err == nil {
		l.Each(func(o kadm.ListedOffset) {
			if found[o.Topic] == nil {
				found[o.Topic] = make(map[int32]int64)
			}
			found[o.Topic][o.Partition] = o.Offset
		})
	}
	return found
}

func (c *cluster) committed(group, topic string) map[int32]int64 {
	found := make(map[int32]int64)
	res, err := c.adm.FetchOffsets(c.ctx(), group)
	if err == nil {
		for p, o := range res[topic] {
			found[p] = o.At
		}
	}
	return found
}

// AllCommitted reports whether the group has committed the end of every partition
// of the topic that holds something.
func (c *cluster) AllCommitted(group, topic string) bool {
	ends := c.ends(topic)
	committed := c.committed(group, topic)
	maps.DeleteFunc(ends, func(p int32, end int64) bool { return end == 0 || committed[p] == end })
	return len(ends) == 0
}

func (c *cluster) awaitCommitted(group, topic string) {
	c.t.Helper()
	defer func() {
		if c.t.Failed() {
			c.t.Logf("committed %v of %v", c.committed(group, topic), c.ends(topic))
		}
	}()
	eventually(c.t, "the group has committed the ends", func() bool { return c.AllCommitted(group, topic) })
}

// nodeIs takes a real node down (SIGKILL) or up again, or lets it pause (SIGSTOP) or
// resume.
func (c *cluster) nodeIs(what string, node int) {
	c.t.Helper()
	args := append(c.node[1:], what, fmt.Sprint(node))
	if out, err := exec.Command(c.node[0], args...).CombinedOutput(); err != nil {
		c.t.Fatalf("node %d %s: %v\n%s", node, what, err, out)
	}
}

// config is quick, with the shortest session that the brokers accept, as members are
// killed.
func (c *cluster) config() *Config {
	config := quick(c.t)
	config.SessionTimeout = 3 * time.Second
	if c.fake == nil {
		config.SessionTimeout, config.HeartbeatInterval = 6*time.Second, 500*time.Millisecond
	}
	return config
}
