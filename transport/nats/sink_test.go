package natstransport

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func newSink(t *testing.T, js jetstream.JetStream, subject string, c *SinkConfig) *Sink {
	t.Helper()
	s, err := NewSink(js, subject, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func claimed(id, value string) *dedup.Message {
	return &dedup.Message{Topic: "in", Value: []byte(value), Claim: dedup.Claim{ID: dedup.NewID("test", dedup.Key(id)), Token: 1}}
}

func numbered(n int) (ms []*dedup.Message) {
	for i := range n {
		ms = append(ms, claimed(fmt.Sprint(i), fmt.Sprint(i)))
	}
	return ms
}

func target(t *testing.T, js jetstream.JetStream, o jetstream.StreamConfig) jetstream.Stream {
	t.Helper()
	o.Name = "OUT"
	if o.Subjects == nil {
		o.Subjects = []string{"out.>"}
	}
	s, err := js.CreateStream(deadline(t), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func stored(t *testing.T, s jetstream.Stream) uint64 {
	t.Helper()
	i, err := s.Info(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	return i.State.Msgs
}

// kind names what a Deduplicator makes of err.
func kind(t *testing.T, err error) string {
	t.Helper()
	switch {
	case err == nil:
		return "confirmed"
	case driver.IsPermanent(err):
		return "permanent"
	}
	// The other marks show in what becomes of the claim.
	m := &dedup.Message{Headers: dedup.Headers{{Key: dedup.HeaderIdempotencyKey, Value: []byte("k")}}}
	fails := func(context.Context, *dedup.Message) ([]byte, error) { return nil, err }
	var claim dedup.Claim
	d := newDeduplicator(t, nil)
	_ = d.Do(t.Context(), m, fails)
	_ = d.Do(t.Context(), m, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		claim = m.Claim
		return nil, nil
	})
	if claim.Ambiguous {
		return "maybe done" // whether or not the attempt counts
	}
	parking := &dedup.Options{DeadLetter: func(context.Context, *dedup.Message, error) error { return nil }, MaxAttempts: 1}
	if newDeduplicator(t, parking).Do(t.Context(), m, fails).Outcome == dedup.Failed {
		return "transient" // the attempt did not count
	}
	return "failed"
}

func TestSinkPublishes(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	out := target(t, js, jetstream.StreamConfig{})
	s := newSink(t, js, "out.x", &SinkConfig{Window: 10, Stream: "OUT"})
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	ms := numbered(100)
	for i := range ms {
		ms[i].Headers = dedup.Headers{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")}, {Key: "nats-rollup", Value: []byte("all")}, {Key: "Nats-Msg-Id", Value: []byte("theirs")}}
	}
	for i, err := range s.Publish(t.Context(), ms) {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	for i, err := range s.Publish(t.Context(), ms[:30]) { // after a crash: the same again
		if err != nil {
			t.Errorf("message %d again: %v", i, err)
		}
	}
	if got := stored(t, out); got != 100 {
		t.Errorf("stored: got %d, want 100", got)
	}
	for i := range 100 {
		m, err := out.GetMsg(deadline(t), uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) != fmt.Sprint(i) || m.Subject != "out.x" {
			t.Fatalf("message %d: got %s on %s", i, m.Data, m.Subject)
		}
		if got := fmt.Sprintf("%v %q %d", m.Header.Values("h"), m.Header.Values("nats-rollup"), len(m.Header.Get("Nats-Msg-Id"))); got != "[1 2] [] 32" {
			t.Fatalf("message %d: got headers %v", i, m.Header)
		}
	}
}

func TestSinkFromManyGoroutines(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	out := target(t, js, jetstream.StreamConfig{})
	s := newSink(t, js, "out.x", &SinkConfig{Window: 7, MsgID: func(*dedup.Message) string { return "" }})
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() {
			for i, err := range s.Publish(t.Context(), numbered(30)) {
				if err != nil {
					t.Errorf("message %d: %v", i, err)
				}
			}
		})
	}
	callers.Wait()
	if got := stored(t, out); got != 600 {
		t.Errorf("stored: got %d, want 600", got)
	}
	if got := len(s.window); got != 0 {
		t.Errorf("places taken in the window at the end: got %d, want 0", got)
	}
}

func TestSinkIDs(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	m := claimed("k", "v")
	id := func(subject string, c *SinkConfig, m *dedup.Message) string {
		return newSink(t, js, subject, c).config.MsgID(m)
	}
	first := id("out", nil, m)
	if len(first) != 32 || first != id("out", nil, m) {
		t.Errorf("got %q and %q, want 32 characters, always the same", first, id("out", nil, m))
	}
	later := *m
	later.Claim.Token++
	if got := id("out", nil, &later); got != first {
		t.Errorf("a later run: got %s, want the same, %s", got, first)
	}
	seen := map[string]string{first: "the sink"}
	for name, other := range map[string]string{
		"another subject":               id("elsewhere", nil, m),
		"another route":                 id("out", &SinkConfig{Route: "r"}, m),
		"another message":               id("out", nil, claimed("l", "v")),
		"its own topic":                 id("", nil, m),
		"dead letters":                  id("out", &SinkConfig{DeadLetters: true}, m),
		"dead letters of another claim": id("out", &SinkConfig{DeadLetters: true}, &later),
	} {
		if was, found := seen[other]; found {
			t.Errorf("%s has the id of %s", name, was)
		}
		seen[other] = name
	}
	if got := id("out", nil, &dedup.Message{Value: []byte("v")}); got != "" {
		t.Errorf("without a claim: got %q, want none", got)
	}
}

func TestSinkDeadLettersAreNeverDropped(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	out := target(t, js, jetstream.StreamConfig{})
	s := newSink(t, js, "out.dead", &SinkConfig{DeadLetters: true})
	m := claimed("k", "v")
	publish := func() error { return s.Publish(t.Context(), []*dedup.Message{m})[0] }
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	if err := publish(); !errors.Is(err, ErrDuplicate) {
		t.Errorf("the same again: got %v, want ErrDuplicate", err)
	}
	m.Claim.Token++ // forgotten by an operator, and parked anew
	if err := publish(); err != nil {
		t.Errorf("parked anew: %v", err)
	}
	if got := stored(t, out); got != 2 {
		t.Errorf("stored: got %d, want 2", got)
	}
}

func TestSinkErrors(t *testing.T) {
	n := brokertest.NewNATS(t, &brokertest.NATSOptions{MaxPayload: 10_000})
	js := connect(t, n)
	target(t, js, jetstream.StreamConfig{Subjects: []string{"out.>"}, MaxMsgSize: 1000, MaxMsgs: 3, Discard: jetstream.DiscardNew})
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "SILENT", Subjects: []string{"silent"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	odd, err := js.Conn().Subscribe("odd", func(m *nats.Msg) { _ = m.Respond([]byte("not from JetStream")) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = odd.Unsubscribe() }()
	plain := &dedup.Message{Value: []byte("v")}
	with := func(key, value string) *dedup.Message {
		return &dedup.Message{Headers: dedup.Headers{{Key: key, Value: []byte(value)}}}
	}
	for _, test := range []struct {
		name, subject string
		config        SinkConfig
		message       *dedup.Message
		want          string
	}{
		{"stored", "out.x", SinkConfig{}, plain, "confirmed"},
		{"no stream", "nowhere", SinkConfig{}, plain, "transient"},
		{"another stream", "out.x", SinkConfig{Stream: "OTHER"}, plain, "transient"},
		{"too large for the stream", "out.x", SinkConfig{}, &dedup.Message{Value: make([]byte, 2000)}, "permanent"},
		{"too large for the server", "out.x", SinkConfig{}, &dedup.Message{Value: make([]byte, 20_000)}, "permanent"},
		{"subject of the message", "", SinkConfig{}, &dedup.Message{Topic: "no good"}, "permanent"},
		{"no subject", "", SinkConfig{}, &dedup.Message{}, "permanent"},
		{"line break in a header", "out.x", SinkConfig{}, with("h", "a\nb"), "permanent"},
		{"space at a header's end", "out.x", SinkConfig{}, with("h", "a "), "permanent"},
		{"space in a header's name", "out.x", SinkConfig{}, with("h h", "a"), "permanent"},
		{"no confirmation", "silent", SinkConfig{Timeout: 50 * time.Millisecond}, plain, "maybe done"},
		{"an answer that is none", "odd", SinkConfig{}, plain, "maybe done"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSink(t, js, test.subject, &test.config)
			err := s.Publish(t.Context(), []*dedup.Message{test.message})[0]
			if got := kind(t, err); got != test.want {
				t.Errorf("got %s, want %s: %v", got, test.want, err)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "natstransport: ")) {
				t.Errorf("got error %q, want one line that names the package", err)
			}
		})
	}
	t.Run("full", func(t *testing.T) {
		s := newSink(t, js, "out.x", nil)
		errs := s.Publish(t.Context(), []*dedup.Message{plain, plain, plain})
		got := fmt.Sprint(kind(t, errs[0]), ", ", kind(t, errs[1]), ", ", kind(t, errs[2]))
		if want := "confirmed, confirmed, transient"; got != want {
			t.Errorf("got %s, want %s: %v", got, want, errs)
		}
	})
	t.Run("context ended before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newSink(t, js, "out.x", nil).Publish(ctx, []*dedup.Message{plain})[0]; kind(t, err) != "transient" {
			t.Errorf("got %v, want it transient", err)
		}
	})
	t.Run("context ends while it waits", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := newSink(t, js, "silent", nil).Publish(ctx, []*dedup.Message{plain})[0]; kind(t, err) != "maybe done" {
			t.Errorf("got %v, want it maybe done", err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		s := newSink(t, js, "out.x", nil)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), []*dedup.Message{plain})[0]; !errors.Is(err, errSinkClosed) {
			t.Errorf("got %v, want %v", err, errSinkClosed)
		}
	})
}

func TestSinkWithoutServer(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	out := target(t, js, jetstream.StreamConfig{Storage: jetstream.FileStorage})
	unconfirmed, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "SILENT", Subjects: []string{"silent"}, NoAck: true})
	if err != nil {
		t.Fatal(err)
	}
	s, silent := newSink(t, js, "out.x", nil), newSink(t, js, "silent", nil)
	under := make(chan error, 1)
	go func() { under <- silent.Publish(t.Context(), numbered(1))[0] }()
	eventually(t, "sent", func() bool { return stored(t, unconfirmed) == 1 })
	n.Stop()
	if err := <-under; kind(t, err) != "maybe done" {
		t.Errorf("the connection lost after sending: got %v, want it maybe done", err)
	}
	eventually(t, "the loss noticed", func() bool { return !js.Conn().IsConnected() })
	for i, err := range s.Publish(t.Context(), numbered(3)) {
		if kind(t, err) != "transient" {
			t.Errorf("message %d: got %v, want it transient", i, err)
		}
	}
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected again", js.Conn().IsConnected)
	for i, err := range s.Publish(t.Context(), numbered(3)) {
		if err != nil {
			t.Errorf("message %d after the restart: %v", i, err)
		}
	}
	if got := stored(t, out); got != 3 {
		t.Errorf("stored: got %d, want 3: nothing was sent while the server was away", got)
	}
}

// endingContext calls a function each time it is asked whether it has ended.
type endingContext struct {
	context.Context
	asked func()
}

func (c endingContext) Err() error {
	c.asked()
	return c.Context.Err()
}

// What follows a message that could not be sent is held back, also when the connection
// is made again in between: it would be stored before it.
func TestSinkHoldsBackWhatFollows(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	out := target(t, connect(t, n), jetstream.StreamConfig{})
	line := &cable{}
	js := connect(t, n, nats.SetCustomDialer(line))
	s := newSink(t, js, "out.x", nil)
	line.set(true)
	eventually(t, "the loss noticed", func() bool { return !js.Conn().IsConnected() })
	asked := 0
	ctx := endingContext{t.Context(), func() {
		if asked++; asked == 2 { // before the second message
			line.set(false)
			eventually(t, "connected again", js.Conn().IsConnected)
		}
	}}
	for i, err := range s.Publish(ctx, numbered(3)) {
		if kind(t, err) != "transient" {
			t.Errorf("message %d: got %v, want it transient", i, err)
		}
	}
	if got := stored(t, out); got != 0 {
		t.Errorf("stored: got %d, want 0", got)
	}
}

func TestClassify(t *testing.T) {
	api := func(code jetstream.ErrorCode) error { return &jetstream.APIError{Code: 503, ErrorCode: code} }
	for _, test := range []struct {
		err  error
		want string
	}{
		{api(codeStorageExceeded), "transient"},
		{api(codeInsufficientResources), "transient"},
		{api(codeClusterNotLeader), "transient"},
		{api(codeSealed), "transient"},
		{api(codeHeaderTooLarge), "permanent"},
		{api(10999), "maybe done"},
		{jetstream.ErrAsyncPublishTimeout, "maybe done"},
		{nats.ErrDisconnected, "maybe done"},
		{jetstream.ErrNoStreamResponse, "transient"},
	} {
		if got := kind(t, classify(test.err)); got != test.want {
			t.Errorf("%v: got %s, want %s", test.err, got, test.want)
		}
	}
	if err := classify(api(codeDuplicateInProcess)); !errors.Is(err, errInProcess) {
		t.Errorf("got %v, want errInProcess", err)
	}
}

func TestSinkTriesAgainWhileTheIDIsBeingStored(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	for times, want := range map[int]string{2: "confirmed", 100: "maybe done"} {
		s := newSink(t, js, fmt.Sprintf("busy.%d", times), nil)
		sent := 0
		_, err := js.Conn().Subscribe(s.subject, func(m *nats.Msg) { // as a stream does
			answer := `{"stream":"OUT","seq":1,"duplicate":true}`
			if sent++; sent <= times {
				answer = fmt.Sprintf(`{"error":{"code":409,"err_code":%d,"description":"duplicate message id is in process"},"stream":"OUT","seq":0}`, codeDuplicateInProcess)
			}
			if err := m.Respond([]byte(answer)); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Publish(t.Context(), numbered(1))[0]
		if got := kind(t, err); got != want {
			t.Errorf("in process %d times: got %v, want it %s", times, err, want)
		}
	}
}

// A message whose id another had may be stored, whatever is heard of it later.
func TestSinkRemembersThatTheIDWasBeingStored(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	s := newSink(t, js, "busy", nil)
	sent := 0
	_, err := js.Conn().Subscribe(s.subject, func(m *nats.Msg) { // as a stream does whose leader then moves
		answer := nats.NewMsg(m.Reply)
		if sent++; sent == 1 {
			answer.Data = fmt.Appendf(nil, `{"error":{"code":409,"err_code":%d,"description":"duplicate message id is in process"},"stream":"OUT","seq":0}`, codeDuplicateInProcess)
		} else {
			answer.Header.Set("Status", "503")
		}
		if err := js.Conn().PublishMsg(answer); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Publish(t.Context(), numbered(1))[0]
	if got := kind(t, err); got != "maybe done" {
		t.Errorf("got %v, want it maybe done", err)
	}
}
