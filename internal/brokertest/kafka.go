package brokertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// KafkaOptions configure a Kafka. nil and zero values mean the defaults.
type KafkaOptions struct {
	// Brokers is the number of brokers. Default 1.
	Brokers int
	// MinSession is the shortest session timeout that the group coordinator
	// accepts. Default 100ms; a real broker's is 6s.
	MinSession time.Duration
	// Durable keeps topics and committed offsets on disk, in a temporary
	// directory that Close removes, so that Restart finds them again.
	Durable bool
	// More is passed on to kfake.
	More []kfake.Opt
}

// Kafka is a cluster of kfake brokers on loopback. Its methods may be called by
// several goroutines at once, except that Close, Stop and Restart exclude all
// others.
type Kafka struct {
	topics  map[string]int32
	options KafkaOptions
	dir     string // empty if not durable
	ports   []int
	addrs   []string
	conns   connSet
	cluster *kfake.Cluster // nil while stopped
}

// StartKafka starts a cluster with the topics, each with that many partitions.
func StartKafka(topics map[string]int32, o *KafkaOptions) (*Kafka, error) {
	k := &Kafka{topics: topics}
	if o != nil {
		k.options = *o
	}
	k.options.Brokers = max(k.options.Brokers, 1)
	if k.options.MinSession == 0 {
		k.options.MinSession = 100 * time.Millisecond
	}
	if k.options.Durable {
		dir, err := os.MkdirTemp("", "brokertest-kafka-")
		if err != nil {
			return nil, fmt.Errorf("brokertest: %w", err)
		}
		k.dir = dir
	}
	if err := k.start(kfake.NumBrokers(k.options.Brokers)); err != nil {
		k.Close()
		return nil, err
	}
	k.addrs = k.cluster.ListenAddrs()
	for _, addr := range k.addrs {
		_, port, err := net.SplitHostPort(addr)
		if err == nil {
			var n int
			n, err = strconv.Atoi(port)
			k.ports = append(k.ports, n)
		}
		if err != nil {
			k.Close()
			return nil, fmt.Errorf("brokertest: broker address %q: %w", addr, err)
		}
	}
	return k, nil
}

func (k *Kafka) start(place kfake.Opt) error {
	opts := []kfake.Opt{
		place,
		kfake.GroupMinSessionTimeout(k.options.MinSession),
		kfake.ListenFn(k.conns.listen),
	}
	for topic, partitions := range k.topics {
		opts = append(opts, kfake.SeedTopics(partitions, topic))
	}
	if k.dir != "" {
		opts = append(opts, kfake.DataDir(k.dir))
	}
	cluster, err := kfake.NewCluster(append(opts, k.options.More...)...)
	if err != nil {
		return fmt.Errorf("brokertest: start kafka: %w", err)
	}
	k.cluster = cluster
	return nil
}

// Addrs returns the addresses of the brokers. They stay the same across Restart.
func (k *Kafka) Addrs() []string { return k.addrs }

// Cluster gives access to all that kfake can do: faults, controls, leaders,
// retention. It is nil while the cluster is stopped.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Stop stops the brokers: connections break, and new ones are refused.
func (k *Kafka) Stop() {
	if k.cluster != nil {
		k.cluster.Close()
		k.cluster = nil
		k.conns.cut()
	}
}

// Restart starts the stopped brokers again, at the same addresses.
func (k *Kafka) Restart() error {
	if k.dir == "" {
		return errors.New("brokertest: Restart needs KafkaOptions.Durable")
	}
	k.Stop()
	var err error
	for range 50 { // somebody's outgoing connection may have taken the port for a moment
		if err = k.start(kfake.Ports(k.ports...)); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// CutConnections breaks all connections to the brokers, which go on running.
func (k *Kafka) CutConnections() { k.conns.cut() }

// Close stops the brokers and removes the files of Durable.
func (k *Kafka) Close() {
	k.Stop()
	if k.dir != "" {
		_ = os.RemoveAll(k.dir)
	}
}

// TB is the part of testing.TB that NewKafka and NewNATS use.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// NewKafka is StartKafka for tests: it fails the test, and closes the cluster at
// its end.
func NewKafka(t TB, topics map[string]int32, o *KafkaOptions) *Kafka {
	t.Helper()
	k, err := StartKafka(topics, o)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(k.Close)
	return k
}

// connSet knows the connections that the brokers accepted.
type connSet struct {
	mu   sync.Mutex
	open map[*serverConn]struct{}
}

func (s *connSet) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return &listener{l, s}, nil
}

func (s *connSet) cut() {
	s.mu.Lock()
	open := s.open
	s.open = nil
	s.mu.Unlock()
	for c := range open {
		_ = c.Close()
	}
}

type listener struct {
	net.Listener
	conns *connSet
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	sc := &serverConn{c, l.conns}
	l.conns.mu.Lock()
	if l.conns.open == nil {
		l.conns.open = make(map[*serverConn]struct{})
	}
	l.conns.open[sc] = struct{}{}
	l.conns.mu.Unlock()
	return sc, nil
}

type serverConn struct {
	net.Conn
	conns *connSet
}

func (c *serverConn) Close() error {
	c.conns.mu.Lock()
	delete(c.conns.open, c)
	c.conns.mu.Unlock()
	return c.Conn.Close()
}

// Produce writes the records, in order, and waits until they are written. A
// record's Topic says where; its Partition counts (default 0) if pinned is set,
// else the record's key decides as in the Java client.
func (k *Kafka) Produce(ctx context.Context, pinned bool, records ...*kgo.Record) error {
	opts := []kgo.Opt{kgo.SeedBrokers(k.addrs...), kgo.ProducerLinger(0)}
	if pinned {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("brokertest: %w", err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("brokertest: produce: %w", err)
	}
	return nil
}

// ReadTopic returns the records that the topic holds now, partition by partition,
// each in its order. Those of aborted transactions are left out.
func (k *Kafka) ReadTopic(ctx context.Context, topic string) ([]*kgo.Record, error) {
	ends := k.Ends(topic)
	next := make(map[int32]kgo.Offset, len(ends))
	for p := range ends {
		next[p] = kgo.NewOffset().AtStart()
	}
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(k.addrs...),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: next}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return nil, fmt.Errorf("brokertest: %w", err)
	}
	defer cl.Close()
	for p, end := range ends {
		if info := k.cluster.PartitionInfo(topic, p); info.LogStartOffset >= end {
			delete(ends, p) // nothing in it
		}
	}
	found := make(map[int32][]*kgo.Record)
	for len(ends) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return nil, fmt.Errorf("brokertest: read %s: %w", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if end, reading := ends[r.Partition]; reading && r.Offset < end && !r.Attrs.IsControl() {
				found[r.Partition] = append(found[r.Partition], r)
			}
			if r.Offset+1 >= ends[r.Partition] {
				delete(ends, r.Partition)
			}
		})
	}
	var records []*kgo.Record
	for p := range int32(len(next)) {
		records = append(records, found[p]...)
	}
	return records, nil
}

// Ends returns the end of each partition of the topic: the offset of the next
// record to be written.
func (k *Kafka) Ends(topic string) map[int32]int64 {
	ends := make(map[int32]int64)
	for _, p := range k.cluster.PartitionInfos(topic) {
		ends[p.Partition] = p.HighWatermark
	}
	return ends
}

// Committed returns the offsets that the group has committed for the topic; a
// partition without a commit is missing.
func (k *Kafka) Committed(group, topic string) map[int32]int64 {
	committed := make(map[int32]int64)
	if info := k.cluster.GroupInfo(group); info != nil {
		for p, c := range info.Commits[topic] {
			committed[p] = c.Offset
		}
	}
	return committed
}

// AwaitCommitted waits until the group has committed the end of every partition
// of the topic that holds something.
func (k *Kafka) AwaitCommitted(ctx context.Context, group, topic string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !k.AllCommitted(group, topic) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("brokertest: group %s has committed %v of %v of topic %s: %w", group, k.Committed(group, topic), k.Ends(topic), topic, context.Cause(ctx))
		}
	}
	return nil
}

// AllCommitted reports whether the group has committed the end of every
// partition of the topic that holds something.
func (k *Kafka) AllCommitted(group, topic string) bool {
	committed := k.Committed(group, topic)
	for p, end := range k.Ends(topic) {
		if end > 0 && committed[p] != end {
			return false
		}
	}
	return true
}
