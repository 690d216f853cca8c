package natstransport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// newReply serves the subject q.
func newReply(t *testing.T, conn *nats.Conn, d *dedup.Deduplicator, h dedup.Handler, o *ReplyConfig) *Reply {
	t.Helper()
	config := ReplyConfig{Patience: maxPatience} // a slow machine is no reason for a 409
	if o != nil {
		config = *o
	}
	config.Logger = testLogger(t)
	r, err := NewReply(conn, d, h, &config)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := conn.QueueSubscribe("q", "workers", r.Msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sub.Unsubscribe()
		if err := r.Shutdown(deadline(t)); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return r
}

func ask(t *testing.T, conn *nats.Conn, key, body string, more ...string) *nats.Msg {
	t.Helper()
	q := &nats.Msg{Subject: "q", Data: []byte(body), Header: nats.Header{}}
	if key != "" {
		q.Header.Set(dedup.HeaderIdempotencyKey, key)
	}
	for i := 0; i < len(more); i += 2 {
		q.Header.Set(more[i], more[i+1])
	}
	m, err := conn.RequestMsgWithContext(deadline(t), q)
	if err != nil {
		t.Errorf("request %q: %v", key, err)
		return &nats.Msg{}
	}
	return m
}

func code(m *nats.Msg) string { return m.Header.Get(micro.ErrorCodeHeader) }

// five sends the same request five times at once, and once more.
func five(t *testing.T, conn *nats.Conn, runs *atomic.Int32, want string) {
	t.Helper()
	var wg sync.WaitGroup
	answers := make([]*nats.Msg, 5)
	for i := range answers {
		wg.Go(func() { answers[i] = ask(t, conn, "k", "order") })
	}
	wg.Wait()
	for i, m := range append(answers, ask(t, conn, "k", "order")) {
		if got := string(m.Data); got != want || code(m) != "" {
			t.Errorf("answer %d: got %q %v, want %q", i, got, m.Header, want)
		}
	}
	if got := runs.Load(); got != 1 {
		t.Errorf("got %d runs, want 1", got)
	}
	if m := ask(t, conn, "k", "order"); m.Header.Get(HeaderReplayed) != "true" {
		t.Errorf("a repeated request: got headers %v, want %s: true", m.Header, HeaderReplayed)
	}
}

func TestReplyRunsOnceForEqualRequests(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	var runs atomic.Int32
	free := make(chan struct{})
	h := func(context.Context, *dedup.Message) ([]byte, error) {
		<-free
		return fmt.Appendf(nil, "placed %d", runs.Add(1)), nil
	}
	r := newReply(t, conn, newDeduplicator(t, nil), h, nil)
	go func() {
		defer close(free)
		eventually(t, "all five in hand", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.pending == 5
		})
	}()
	five(t, conn, &runs, "placed 1")
}

func TestReplyServesMicro(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	var runs atomic.Int32
	h := func(context.Context, *dedup.Message) ([]byte, error) {
		return fmt.Appendf(nil, "placed %d", runs.Add(1)), nil
	}
	r, err := NewReply(conn, newDeduplicator(t, nil), h, nil)
	if err != nil {
		t.Fatal(err)
	}
	service, err := micro.AddService(conn, micro.Config{Name: "orders", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.AddEndpoint("place", r, micro.WithEndpointSubject("q")); err != nil {
		t.Fatal(err)
	}
	five(t, conn, &runs, "placed 1")
	if err := service.Stop(); err != nil {
		t.Error(err)
	}
	if err := r.Shutdown(deadline(t)); err != nil {
		t.Error(err)
	}
}

func TestReplyRefusals(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	newReply(t, conn, newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		return []byte("placed"), nil
	}, nil)
	if m := ask(t, conn, "", "order"); code(m) != "400" || m.Header.Get(HeaderRetryAfter) != "" {
		t.Errorf("without a key: got %v, want 400 and no %s", m.Header, HeaderRetryAfter)
	}
	ask(t, conn, "k", "order")
	m := ask(t, conn, "k", "another order")
	if code(m) != "422" || m.Header.Get(HeaderRetryAfter) != "" {
		t.Errorf("another payload: got %v, want 422 and no %s", m.Header, HeaderRetryAfter)
	}
	if strings.Contains(m.Header.Get(micro.ErrorHeader), "another order") {
		t.Errorf("got the payload in %q", m.Header.Get(micro.ErrorHeader))
	}
}

func TestReplyInProgress(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	var runs atomic.Int32
	begun, free := make(chan struct{}), make(chan struct{})
	newReply(t, conn, newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		if runs.Add(1) == 1 {
			close(begun)
		}
		<-free
		return []byte("placed"), nil
	}, nil)
	first := make(chan *nats.Msg, 1)
	go func() { first <- ask(t, conn, "k", "order") }()
	<-begun
	m := ask(t, conn, "k", "order", HeaderPatience, "100ms")
	if code(m) != "409" || m.Header.Get(HeaderRetryAfter) != "1" {
		t.Errorf("while the first runs: got %v, want 409 and %s: 1", m.Header, HeaderRetryAfter)
	}
	close(free)
	if m := <-first; string(m.Data) != "placed" {
		t.Errorf("the first: got %q %v, want placed", m.Data, m.Header)
	}
	if m := ask(t, conn, "k", "order"); string(m.Data) != "placed" || runs.Load() != 1 {
		t.Errorf("after it: got %q %v and %d runs, want placed and 1", m.Data, m.Header, runs.Load())
	}
}

// A holder elsewhere: another Deduplicator on the same store.
func TestReplyWaitsForARunElsewhere(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	here, there := connect(t, n).Conn(), connect(t, n).Conn()
	store := memstore.New(nil)
	begun, free := make(chan struct{}), make(chan struct{})
	held, err := NewReply(there, newDeduplicatorOver(t, store, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		close(begun)
		<-free
		return []byte("placed there"), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	held.Msg(&nats.Msg{Subject: "q", Data: []byte("order"), Header: nats.Header{dedup.HeaderIdempotencyKey: {"k"}}})
	<-begun
	var busy outcomes
	d := newDeduplicatorOver(t, store, &dedup.Options{Hooks: busy.hooks()})
	newReply(t, here, d, func(context.Context, *dedup.Message) ([]byte, error) {
		return []byte("placed here"), nil
	}, nil)
	go func() {
		defer close(free)
		eventually(t, "the request found the key held", func() bool { return busy.count(dedup.Busy) > 0 })
	}()
	if m := ask(t, here, "k", "order", HeaderPatience, "1m"); string(m.Data) != "placed there" {
		t.Errorf("got %q %v, want what the other run placed", m.Data, m.Header)
	}
	if err := held.Shutdown(deadline(t)); err != nil {
		t.Error(err)
	}
}

func TestReplyErrors(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	var runs atomic.Int32
	newReply(t, conn, newDeduplicator(t, nil), func(_ context.Context, m *dedup.Message) ([]byte, error) {
		n := runs.Add(1)
		unknown := &ServiceError{Code: "404", Description: "no such\r\narticle", Data: fmt.Appendf(nil, "run %d", n)}
		switch string(m.Value) {
		case "permanent":
			return nil, dedup.Permanent(fmt.Errorf("look it up: %w", unknown))
		case "service":
			return nil, dedup.RetryAfter(unknown, 1500*time.Millisecond)
		case "panic":
			panic("secret")
		}
		return nil, errors.New("secret")
	}, nil)
	for _, c := range []struct {
		body, code, after, replayed, data string
		runs                              int32 // of two requests
	}{
		{"permanent", "404", "", "true", "run 1", 1},
		{"service", "404", "2", "", "run 2", 2},
		{"plain", "500", "1", "", "", 2},
		{"panic", "500", "1", "", "", 2},
	} {
		runs.Store(0)
		ask(t, conn, c.body, c.body)
		m := ask(t, conn, c.body, c.body)
		h := m.Header
		if code(m) != c.code || h.Get(HeaderRetryAfter) != c.after || h.Get(HeaderReplayed) != c.replayed || string(m.Data) != c.data || runs.Load() != c.runs {
			t.Errorf("%s, asked twice: got %q %v after %d runs, want %+v", c.body, m.Data, h, runs.Load(), c)
		}
		if d := h.Get(micro.ErrorHeader); d == "" || strings.Contains(d, "secret") || strings.ContainsAny(d, "\r\n") {
			t.Errorf("%s: got description %q, want one line without the secret", c.body, d)
		}
	}
}

func TestReplyTooLongToBeKept(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	newReply(t, conn, newDeduplicator(t, &dedup.Options{MaxResult: 8}), func(context.Context, *dedup.Message) ([]byte, error) {
		return []byte("a long reply"), nil
	}, nil)
	if m := ask(t, conn, "k", "order"); string(m.Data) != "a long reply" {
		t.Errorf("the first: got %q %v, want the reply", m.Data, m.Header)
	}
	if m := ask(t, conn, "k", "order"); code(m) != "410" {
		t.Errorf("the second: got %q %v, want 410", m.Data, m.Header)
	}
}

func TestReplyTooLargeForTheServer(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, &brokertest.NATSOptions{MaxPayload: 1000})).Conn()
	newReply(t, conn, newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		return make([]byte, 2000), nil
	}, nil)
	for range 2 {
		if m := ask(t, conn, "k", "order"); code(m) != "500" {
			t.Errorf("got %d bytes %v, want 500", len(m.Data), m.Header)
		}
	}
}

func TestReplyBounds(t *testing.T) {
	conn := connect(t, brokertest.NewNATS(t, nil)).Conn()
	begun, free := make(chan struct{}), make(chan struct{})
	r := newReply(t, conn, newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		close(begun)
		<-free
		return nil, nil
	}, &ReplyConfig{Pending: 1})
	first := make(chan *nats.Msg, 1)
	go func() { first <- ask(t, conn, "k", "order") }()
	<-begun
	if m := ask(t, conn, "other", "order"); code(m) != "503" || m.Header.Get(HeaderRetryAfter) != "1" {
		t.Errorf("over Pending: got %v, want 503 and %s: 1", m.Header, HeaderRetryAfter)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	if err := r.Shutdown(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown while one runs: got %v, want %v", err, context.Canceled)
	}
	close(free)
	if m := <-first; code(m) != "" {
		t.Errorf("the one that ran: got %v, want its reply", m.Header)
	}
	if m := ask(t, conn, "k", "order"); code(m) != "503" {
		t.Errorf("after Shutdown: got %v, want 503", m.Header)
	}
}

// What JetStream delivers has another inbox: an answer to it would acknowledge
// the message, or terminate it.
func TestReplyIsNoAcknowledgement(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 1, 1)
	var runs atomic.Int32
	r, err := NewReply(js.Conn(), newDeduplicator(t, nil), func(context.Context, *dedup.Message) ([]byte, error) {
		runs.Add(1)
		return []byte("+TERM"), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := js.Consumer(deadline(t), "S", "c")
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	r.Msg(&nats.Msg{Subject: m.Subject(), Reply: m.Reply(), Header: m.Headers(), Data: m.Data()})
	if err := r.Shutdown(deadline(t)); err != nil {
		t.Fatal(err)
	}
	if err := js.Conn().Flush(); err != nil {
		t.Fatal(err)
	}
	if got := info(t, js).NumAckPending; got != 1 || runs.Load() != 1 {
		t.Errorf("got %d messages not acknowledged and %d runs, want 1 and 1", got, runs.Load())
	}
}

// Messages of a stream say themselves where the reply goes.
func TestReplyToSubjectOfHeader(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	replies, err := js.Conn().SubscribeSync("replies")
	if err != nil {
		t.Fatal(err)
	}
	var runs atomic.Int32
	h := func(_ context.Context, m *dedup.Message) ([]byte, error) {
		runs.Add(1)
		if string(m.Value) == "bad" {
			return nil, dedup.Permanent(&ServiceError{Code: "404", Description: "no such article"})
		}
		return append([]byte("placed "), m.Value...), nil
	}
	batched := func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := make([]dedup.Answer, len(ms))
		for i, m := range ms {
			answers[i].Result, answers[i].Err = h(ctx, m)
		}
		return answers
	}
	send := func(key, body, to string) {
		t.Helper()
		m := &nats.Msg{Subject: "s.orders", Data: []byte(body), Header: nats.Header{dedup.HeaderIdempotencyKey: {key}, HeaderReplyTo: {to}}}
		if _, err := js.PublishMsg(deadline(t), m); err != nil {
			t.Fatal(err)
		}
	}
	receive := func(what, data, code string) {
		t.Helper()
		m, err := replies.NextMsgWithContext(deadline(t))
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if string(m.Data) != data || m.Header.Get(micro.ErrorCodeHeader) != code {
			t.Errorf("%s: got %q %v, want %q and code %q", what, m.Data, m.Header, data, code)
		}
	}
	config := quick(t)
	config.Reply = true
	d := newDeduplicator(t, &dedup.Options{OnConflict: dedup.PolicySkip})
	for _, consume := range []func(c *Consumer) func(context.Context) error{
		func(c *Consumer) func(context.Context) error {
			return func(ctx context.Context) error { return c.Run(ctx, d, h) }
		},
		func(c *Consumer) func(context.Context) error {
			return func(ctx context.Context) error { return c.RunBatch(ctx, d, batched) }
		},
	} {
		run := start(t, consume(newConsumer(t, js, config)))
		for _, key := range []string{"new", "new"} { // the second time, and to RunBatch, from the record
			send(key, "1", "replies")
			receive("an order", "placed 1", "")
		}
		send("new", "2", "replies")
		receive("another payload", "", "422")
		send("bad", "bad", "replies")
		receive("an error for good", "", "404")
		send("new", "1", "$JS.API.STREAM.DELETE.S")
		send("new", "1", "a b")
		answered(t, js)
		if err := run.Stop(); err != nil {
			t.Error(err)
		}
	}
	if got := runs.Load(); got != 2 {
		t.Errorf("got %d runs, want 2", got)
	}
}

func TestReplyConfig(t *testing.T) {
	c, err := (*ReplyConfig)(nil).filled()
	if err != nil || c.Patience != 2*time.Second || c.Pending != 1024 || c.Logger == nil {
		t.Errorf("defaults: got %+v, %v, want 2s, 1024 and a logger", c, err)
	}
	for _, o := range []ReplyConfig{{Patience: -1}, {Patience: time.Millisecond}, {Patience: time.Hour}, {Pending: -1}} {
		if _, err := o.filled(); err == nil {
			t.Errorf("%+v: got no error, want one", o)
		}
	}
	if _, err := NewReply(nil, nil, nil, nil); err == nil {
		t.Error("NewReply of nothing: got no error, want one")
	}
}

func FuzzDecodeResponse(f *testing.F) {
	for _, r := range []response{{}, {data: []byte("x")}, {code: "404", description: "no", data: []byte("y")}} {
		f.Add(r.encode())
	}
	f.Add([]byte{recordedError, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeResponse(b)
		if err != nil {
			return
		}
		again, err := decodeResponse(r.encode())
		if err != nil || again.code != r.code || again.description != r.description || string(again.data) != string(r.data) {
			t.Errorf("%x: got %+v, then %+v, %v, want the same twice", b, r, again, err)
		}
	})
}
