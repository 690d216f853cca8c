package kafkatransport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	metadataapi "github.com/segmentio/kafka-go/protocol/metadata"
)

const (
	// connectTimeout is how long an address may be silent before another is tried.
	connectTimeout = 3 * time.Second
	// dialTimeout bounds all that makes a connection: TLS and SASL take a broker
	// longer that is busy.
	dialTimeout    = 8 * time.Second
	requestTimeout = 10 * time.Second
	// defaultMetadataTTL bounds how old the known leaders and partitions may be. It
	// is also how long kafka-go waits for an answer to a request for them.
	defaultMetadataTTL = 6 * time.Second
	// firstRenew and lastRenew keep many failing partitions from replacing the
	// connections again and again. The first few replacements come soon, because
	// brokers learn of a new leader one after the other.
	firstRenew = 100 * time.Millisecond
	lastRenew  = time.Second
)

// link is the way to the brokers. All connections are opened and secured here:
// those of kafka.Transport, and those of the consumer group. That makes it possible
// to end all of them, whatever they wait for.
type link struct {
	brokers  []string
	clientID string
	security Security
	topics   []string // to know the leaders of; nil for all
	ttl      time.Duration

	mu        sync.Mutex
	transport *kafka.Transport
	replaced  *kafka.Transport // the one before; nil: none
	renewed   time.Time
	rest      time.Duration // in which they are not renewed again
	open      map[*conn]struct{}

	closed context.Context // ended by close
	end    context.CancelFunc
}

func newLink(brokers []string, clientID string, security Security, topics []string, ttl time.Duration) *link {
	l := &link{brokers: brokers, clientID: clientID, security: security, topics: topics, ttl: ttl, open: make(map[*conn]struct{})}
	l.closed, l.end = context.WithCancel(context.Background())
	l.transport = l.newTransport()
	return l
}

func (l *link) newTransport() *kafka.Transport {
	return &kafka.Transport{
		Dial:           l.dial,
		DialTimeout:    dialTimeout,
		ClientID:       l.clientID,
		SASL:           l.security.SASL,
		MetadataTTL:    l.ttl,
		MetadataTopics: l.topics,
		Context:        l.closed,
	}
}

// client returns a Client over the current connections.
func (l *link) client(timeout time.Duration) *kafka.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &kafka.Client{Addr: kafka.TCP(l.brokers...), Transport: l.transport, Timeout: timeout}
}

func (l *link) roundTrip(ctx context.Context, req kafka.Request) (kafka.Response, error) {
	l.mu.Lock()
	t := l.transport
	l.mu.Unlock()
	return t.RoundTrip(ctx, kafka.TCP(l.brokers...), req)
}

// renew gives up the connections and what is known about leaders, after an
// error that says that either is out of date. Requests under way are not disturbed.
func (l *link) renew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	since := now.Sub(l.renewed)
	switch {
	case l.closed.Err() != nil, since < l.rest:
		return
	case since > 10*lastRenew:
		l.rest = firstRenew
	default:
		l.rest = min(2*l.rest, lastRenew)
	}
	l.closeIdle()
	l.replaced, l.transport = l.transport, l.newTransport()
	l.renewed = now
}

// closeIdle ends what no request uses, of the transport before too: a request that was
// about to begin when that was replaced has made new ones. The caller holds mu.
func (l *link) closeIdle() {
	if l.replaced != nil {
		l.replaced.CloseIdleConnections()
	}
	l.transport.CloseIdleConnections()
}

// groupDialer is for the connections of the consumer group.
func (l *link) groupDialer() *kafka.Dialer {
	return &kafka.Dialer{ClientID: l.clientID, Timeout: dialTimeout, DialFunc: l.dialGroup, SASLMechanism: l.security.SASL}
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.closed.Err() != nil { // kafka-go tries one broker after the other
		return nil, net.ErrClosed
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.closed, cancel)()
	c, raw, err := l.security.open(ctx, network, address)
	switch {
	case err != nil && l.closed.Err() != nil:
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Err() != nil {
		_ = raw.Close()
		return nil, net.ErrClosed
	}
	lc := &conn{Conn: c, raw: raw, link: l, heard: l.security.TLS != nil}
	l.open[lc] = struct{}{}
	return lc, nil
}

// close ends all connections, those that are being opened too, and whatever waits on
// them.
func (l *link) close() {
	l.mu.Lock()
	l.end()
	l.closeIdle()
	open := l.open
	l.open = nil
	l.mu.Unlock()
	for c := range open {
		_ = c.raw.Close() // TLS would wait to say goodbye
	}
}

// conn is a connection that its link can close, and whose write errors can be told.
type conn struct {
	net.Conn
	raw   net.Conn // below TLS
	link  *link
	heard bool // the first read is over, or TLS has seen to it
}

func (c *conn) Close() error {
	c.link.mu.Lock()
	delete(c.link.open, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if !c.heard {
		c.heard = true
		err = firstRead(b[:n], err)
	}
	return n, err
}

// Write marks its errors: what could not be handed to the network whole is no
// request, and a broker does not act on it.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}

type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// errNoTopic: the brokers answer, and do not know the topic.
var errNoTopic = errors.New("the topic does not exist")

// partitions returns how many partitions the topics have. A missing topic has none.
func (l *link) partitions(ctx context.Context, topics ...string) (map[string]int, error) {
	m, err := l.client(0).Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return nil, l.unreachable(err)
	}
	counts := make(map[string]int, len(topics))
	for _, t := range m.Topics {
		switch {
		case t.Error == nil:
			counts[t.Name] = len(t.Partitions)
		case errors.Is(t.Error, kafka.UnknownTopicOrPartition):
			counts[t.Name] = 0
		default:
			return nil, denied(fmt.Errorf("topic %q: %w", t.Name, t.Error), describe, t.Name, "")
		}
	}
	return counts, nil
}

// leaders returns the brokers that lead the partitions of the topic, -1 where there
// is none. A missing topic has no partitions.
func (l *link) leaders(ctx context.Context, topic string) ([]int32, error) {
	res, err := l.roundTrip(ctx, &metadataapi.Request{TopicNames: []string{topic}})
	if err != nil {
		return nil, l.unreachable(err)
	}
	m, ok := res.(*metadataapi.Response)
	if !ok || len(m.Topics) != 1 {
		return nil, fmt.Errorf("unexpected answer %T to a request for metadata", res)
	}
	t := &m.Topics[0]
	if code := kafka.Error(t.ErrorCode); code != 0 && code != kafka.UnknownTopicOrPartition {
		return nil, denied(fmt.Errorf("topic %q: %w", topic, code), describe, topic, "")
	}
	brokers := make([]int32, len(t.Partitions))
	for i, p := range t.Partitions { // kafka-go sorts them
		brokers[i] = p.LeaderID
	}
	return brokers, nil
}

func (l *link) unreachable(err error) error {
	brokers := strings.Join(l.brokers, ",")
	if why := l.security.explain(err); why != "" {
		return fmt.Errorf("brokers %s: %w: %s", brokers, err, why)
	}
	return fmt.Errorf("no broker of %s answers: %w; check the address, and that the broker runs", brokers, err)
}

// explained returns an error of a connection with what is probably wrong, if that
// can be told.
func (l *link) explained(err error) error {
	if why := l.security.explain(err); why != "" {
		return fmt.Errorf("%w: %s", err, why)
	}
	return err
}

// check says whether a broker answers and the topics exist.
func (l *link) check(ctx context.Context, topics ...string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	counts, err := l.partitions(ctx, topics...)
	if err != nil {
		return fmt.Errorf("kafkatransport: %w", err)
	}
	for _, topic := range slices.Sorted(slices.Values(topics)) {
		if counts[topic] == 0 {
			return fmt.Errorf("kafkatransport: topic %q at %s: %w; create it, or correct the name", topic, strings.Join(l.brokers, ","), errNoTopic)
		}
	}
	return nil
}
