package natstransport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// tripwire is a nats.CustomDialer whose first connection breaks as it is about to read a
// text, so that this and what came with it are lost.
type tripwire struct {
	text   []byte
	quiet  bool // the server does not notice
	dialed atomic.Int32
	once   sync.Once
	cut    chan struct{} // closed then
}

func (w *tripwire) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return &tripping{conn, w, w.dialed.Add(1) == 1}, err
}

type tripping struct {
	net.Conn
	wire  *tripwire
	first bool
}

func (c *tripping) Read(p []byte) (n int, err error) {
	n, err = c.Conn.Read(p)
	if bytes.Contains(p[:n], c.wire.text) {
		c.wire.once.Do(func() {
			n, err = 0, errors.New("the connection broke")
			close(c.wire.cut)
		})
	}
	return n, err
}

func (c *tripping) Close() error {
	if c.wire.quiet && c.first {
		return nil
	}
	return c.Conn.Close()
}

// ordered notes in which order a handler saw the messages of each subject, and that it
// saw none twice.
type ordered struct {
	mu   sync.Mutex
	seqs map[string][]int64
}

func (o *ordered) handle(_ context.Context, m *dedup.Message) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seqs == nil {
		o.seqs = map[string][]int64{}
	}
	o.seqs[m.Topic] = append(o.seqs[m.Topic], m.Position.Offset)
	return nil, nil
}

func (o *ordered) seen() (n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.seqs {
		n += len(s)
	}
	return n
}

func (o *ordered) check(t *testing.T, messages int) {
	t.Helper()
	if got := o.seen(); got != messages {
		t.Errorf("got %d messages handled, want %d", got, messages)
	}
	for subject, s := range o.seqs {
		for i := 1; i < len(s); i++ {
			if s[i] <= s[i-1] {
				t.Errorf("subject %s: got the sequence %d handled after %d, want each once and in order", subject, s[i], s[i-1])
			}
		}
	}
}

// quickly is quick for what is lost and waited for.
func quickly(t *testing.T) *Config {
	o := quick(t)
	o.OrderBy = OrderByToken(2)
	o.slack = 300 * time.Millisecond
	return o
}

func publishOne(t *testing.T, js jetstream.JetStream, subject, value string) {
	t.Helper()
	if _, err := js.PublishMsg(deadline(t), jetstreamMessage(subject, value)); err != nil {
		t.Fatal(err)
	}
}

// What was on its way when the connection broke comes again after AckWait. What was
// published after it must not pass it.
func TestOrderOverABrokenConnection(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lost  int // message
		quiet bool
		slack time.Duration
		then  func(t *testing.T, n *brokertest.NATS) // while it is waited for
	}{
		{name: "the first", lost: 1},
		{name: "the second", lost: 2},
		{name: "the server does not notice", lost: 1, quiet: true},
		{name: "again while it waits", lost: 1, then: func(t *testing.T, n *brokertest.NATS) {
			if err := n.CutConnections(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "the server restarts while it waits", lost: 1, slack: 2 * time.Second, then: func(t *testing.T, n *brokertest.NATS) {
			if err := n.Restart(); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := brokertest.NewNATS(t, nil)
			js := connect(t, n)
			newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Second })
			wire := &tripwire{text: fmt.Appendf(nil, "the value %d", tt.lost), quiet: tt.quiet, cut: make(chan struct{})}
			mine := connect(t, n, nats.SetCustomDialer(wire))
			config, counted := quickly(t), &countingHandler{}
			config.Logger = slog.New(counted)
			config.expires = time.Second // of the requests of a connection that only the server believes in
			config.slack = orDefault(tt.slack, config.slack)
			c := newConsumer(t, mine, config)
			d := newDeduplicator(t, nil)
			var o ordered
			r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, o.handle) })
			eventually(t, "a request at the server", func() bool { return info(t, js).NumWaiting > 0 })
			for i := 1; i <= 3; i++ {
				publishOne(t, js, "s.key", fmt.Sprint("the value ", i))
				if i != tt.lost {
					continue
				}
				<-wire.cut
				eventually(t, "the loss noticed", func() bool { return counted.count("waiting for messages") > 0 })
				if tt.then != nil {
					tt.then(t, n)
					eventually(t, "connected again", func() bool {
						return mine.Conn().Stats().Reconnects == 2 && mine.Conn().IsConnected() && js.Conn().IsConnected()
					})
				}
			}
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			o.check(t, 3)
		})
	}
}

// A member that waits for what is lost drains at once, and hands back what it has
// gathered.
func TestOrderStopsWhileItWaits(t *testing.T) {
	t.Parallel()
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Hour })
	publish(t, js, 0, 3)
	fetch(t, js, 1) // and die
	counted := &countingHandler{}
	config := quickly(t)
	config.Logger = slog.New(counted)
	c := newConsumer(t, js, config)
	var o ordered
	d := newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, o.handle) })
	eventually(t, "the loss noticed", func() bool { return counted.count("waiting for messages") > 0 })
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	o.check(t, 0)
	if got := info(t, js).Delivered.Consumer; got != 1 {
		t.Errorf("got %d deliveries, want only that of before", got)
	}
}

// What was gathered, to be sorted, is handed back at the drain, more than the queue
// takes too.
func TestOrderHandsBackWhatItGathered(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Hour })
	for i := range 6 {
		publishOne(t, js, fmt.Sprint("s.", i%3), fmt.Sprint("v", i))
	}
	s := newSession(context.Background(), newConsumer(t, js, quickly(t)), 1, 1)
	defer s.cancel(nil)
	b, err := s.bind(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.abandon()
	s.order.shutDown()
	if err := b.puller.pullAgain(6); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all gathered", func() bool { n, _ := s.order.gathered(); return n == 6 })
	b.stopPulling()
	close(s.quit)
	s.handBack()
	if got := len(fetch(t, js, 6)); got != 6 {
		t.Errorf("handed back: got %d, want 6", got)
	}
	if got := s.hand.count(); got != 0 {
		t.Errorf("in hand: got %d, want none", got)
	}
}

// Two members of a consumer have no order, and must not wait for each other's messages
// over and over.
func TestOrderIsNotShared(t *testing.T) {
	t.Parallel()
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Second })
	counted := &countingHandler{}
	config := quickly(t)
	config.expires = 400 * time.Millisecond
	config.Logger = slog.New(counted)
	d := newDeduplicator(t, nil)
	j := newJournal()
	var members []*run
	for range 2 {
		c := newConsumer(t, js, config)
		members = append(members, start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) }))
	}
	n := 0
	eventually(t, "a member to see the other", func() bool {
		publish(t, js, n, 1)
		n++
		return counted.count("another member") > 0
	})
	answered(t, js)
	for _, r := range members {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	j.check(t, n)
}

func TestFlowFindsWhatIsLost(t *testing.T) {
	type step struct {
		n    uint64
		want error
	}
	for name, tt := range map[string]struct {
		told  uint64 // 0: nothing
		whole bool
		steps []step
	}{
		"one after the other":                {whole: true, steps: []step{{11, nil}, {12, nil}, {13, nil}}},
		"nothing after a gap":                {whole: true, steps: []step{{11, nil}, {13, errLost}, {12, errLost}, {14, errLost}}},
		"counted anew, who knows from where": {whole: true, steps: []step{{11, nil}, {7, errLost}}},
		"counted anew, as the server told":   {told: 6, whole: true, steps: []step{{7, nil}, {8, nil}, {10, errLost}}},
		"gaps without an order":              {steps: []step{{11, nil}, {13, nil}, {20, nil}}},
		"counted anew without an order":      {steps: []step{{11, nil}, {7, errRestarted}, {8, nil}}},
	} {
		f := &flow{last: 10, told: 10}
		if tt.told != 0 && !f.complete(tt.told) {
			t.Errorf("%s: complete(%d): got false, want true", name, tt.told)
		}
		for _, s := range tt.steps {
			if got := f.take(s.n, tt.whole); !errors.Is(got, s.want) {
				t.Errorf("%s: take(%d): got %v, want %v", name, s.n, got, s.want)
			}
		}
	}
	f := &flow{last: 10, told: 10}
	if f.complete(11) {
		t.Error("complete(11) after 10: got true, want false")
	}
	if f.count(11); !f.complete(11) {
		t.Error("complete(11) counted from there: got false, want true")
	}
}

// What comes again is sorted before any of it begins.
func TestOrderSorts(t *testing.T) {
	o := newOrder(OrderByToken(1))
	o.shutDown()
	for _, n := range []int64{7, 3, 5} {
		d := &delivery{message: dedup.Message{Topic: fmt.Sprint("key", n == 5), Position: dedup.Position{Offset: n}, Delivery: 2}}
		if o.first(d) {
			t.Errorf("message %d began", n)
		}
	}
	if n, all := o.gathered(); n != 3 || all {
		t.Errorf("gathered: got %d, %v, want 3, false", n, all)
	}
	if o.first(&delivery{message: dedup.Message{Topic: "keytrue", Position: dedup.Position{Offset: 8}, Delivery: 1}}) {
		t.Error("a new message began")
	}
	if n, all := o.gathered(); n != 4 || !all {
		t.Errorf("gathered: got %d, %v, want 4, true: a new one came", n, all)
	}
	var got []int64
	for _, d := range o.open() {
		for ; d != nil; d = o.next(d, true, 0) {
			got = append(got, d.sequence())
		}
	}
	if fmt.Sprint(got) != "[3 7 5 8]" {
		t.Errorf("got %v, want 3 and 7 of one key, 5 and 8 of the other", got)
	}
	if o.isShut() {
		t.Error("still shut")
	}
}

// The same with many keys, again and again while messages are published.
func TestOrderOverManyBrokenConnections(t *testing.T) {
	t.Parallel()
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = 500 * time.Millisecond })
	line := &cable{}
	testManyBroken(t, js, connect(t, n, nats.SetCustomDialer(line)), quickly(t), "S", 5, 1000, func(int) {
		line.set(true)
		line.set(false)
	})
}

// testManyBroken has messages of ten keys handled by a member of the connection mine, and
// calls cut in the middle of each round.
func testManyBroken(t *testing.T, js, mine jetstream.JetStream, config *Config, stream string, rounds, each int, cut func(round int)) {
	const keys = 10
	config.Prefetch = 100
	c, err := NewConsumer(mine, stream, "c", config)
	if err != nil {
		t.Fatal(err)
	}
	d := newDeduplicator(t, &dedup.Options{Concurrency: 32})
	var o ordered
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, o.handle) })
	sink := newSink(t, js, "", nil)
	random := rand.New(rand.NewPCG(1, 2))
	prefix := prefixOf(t, js, stream)
	for round := range rounds {
		ms := orders(prefix, round*each, each)
		for i, m := range ms {
			m.Topic = fmt.Sprintf("%s.%d", prefix, i%keys)
		}
		published := make(chan error, 1)
		go func() {
			_, err := publishAll(t.Context(), sink, ms)
			published <- err
		}()
		goal := round*each + random.IntN(each/2) + 1
		eventually(t, "some handled", func() bool { return o.seen() >= goal })
		cut(round)
		if err := <-published; err != nil {
			t.Fatal(err)
		}
		eventually(t, "what was published handled", func() bool { return o.seen() == (round+1)*each })
	}
	answeredIn(t, js, stream)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	o.check(t, rounds*each)
	t.Logf("%d deliveries came again", c.Status().Redelivered)
}
