package natstransport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// orders returns n messages with the numbers from first on, to subjects with the
// prefix.
func orders(prefix string, first, n int) []*dedup.Message {
	ms := make([]*dedup.Message, n)
	for i := range ms {
		id := fmt.Sprint(first + i)
		ms[i] = &dedup.Message{Topic: prefix + "." + id, Value: []byte(id)}
		ms[i].Headers.SetKey(dedup.Key(id))
	}
	return ms
}

// publishAll publishes as a producer does: what is not confirmed, again, until it is.
// It returns how many times it did that for a message.
func publishAll(ctx context.Context, sink *Sink, ms []*dedup.Message) (again int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	for len(ms) > 0 {
		n := min(len(ms), 1000)
		var left []*dedup.Message
		for i, err := range sink.Publish(ctx, ms[:n]) {
			if driver.IsPermanent(err) {
				return again, err
			}
			if err != nil {
				left = append(left, ms[i])
			}
		}
		again += len(left)
		ms = append(left, ms[n:]...)
		if len(left) > 0 && !pause(ctx.Done(), 50*time.Millisecond) {
			return again, fmt.Errorf("%d messages are not confirmed: %w", len(ms), ctx.Err())
		}
	}
	return again, nil
}

func TestBacklog(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, nil)
	testBacklog(t, js, func() jetstream.JetStream { return connect(t, n) }, "S", 4000)
}

// publishBacklog stores messages of which half are retries, in no order.
func publishBacklog(t *testing.T, js jetstream.JetStream, stream string, messages int) {
	t.Helper()
	ms := orders(prefixOf(t, js, stream), 0, messages/2)
	ms = append(ms, ms...)
	random := rand.New(rand.NewPCG(1, 2))
	random.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	sink := newSink(t, js, "", nil)
	if _, err := publishAll(t.Context(), sink, ms); err != nil {
		t.Fatal(err)
	}
}

// A backlog of which half are retries is consumed by two members, of which one is
// restarted over and over: drained, or with its connection gone, so that what it
// holds comes back only after AckWait.
func testBacklog(t *testing.T, js jetstream.JetStream, connect func() jetstream.JetStream, stream string, messages int) {
	publishBacklog(t, js, stream, messages)
	store := memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)})
	j := newJournal()
	member := func() (*run, jetstream.JetStream) {
		js := connect()
		c, err := NewConsumer(js, stream, "c", quick(t))
		if err != nil {
			t.Fatal(err)
		}
		d := newDeduplicatorOver(t, store, nil)
		return start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) }), js
	}
	steady, _ := member()
	restarts := 0
	for ; j.seen() < messages/2; restarts++ {
		r, js := member()
		before := j.seen()
		eventually(t, "some handled", func() bool { return j.seen() > before+messages/40 || j.seen() == messages/2 })
		if restarts%2 == 0 {
			js.Conn().Close()
			if err := r.Wait(); !errors.Is(err, errClosed) {
				t.Errorf("Run: got %v, want that the connection is closed", err)
			}
			continue
		}
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
		js.Conn().Close()
	}
	answeredIn(t, js, stream)
	if err := steady.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, messages/2)
	if len(j.flagged) > 0 {
		t.Errorf("%d runs were Ambiguous, want none: no member died", len(j.flagged))
	}
	t.Logf("%d restarts", restarts)
}

// Each message that always fails is parked once, with its id in the dead letters'
// stream, and the others are processed as if it were not there.
func TestPoisonAmongOthers(t *testing.T) {
	const messages, nth = 1000, 20
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "DLQ", Subjects: []string{"dead"}}); err != nil {
		t.Fatal(err)
	}
	dead := newSink(t, js, "dead", &SinkConfig{DeadLetters: true})
	d := newDeduplicator(t, &dedup.Options{
		MaxAttempts: 3,
		Backoff:     func(int) time.Duration { return 10 * time.Millisecond },
		DeadLetter: func(ctx context.Context, m *dedup.Message, _ error) error {
			return dead.Publish(ctx, []*dedup.Message{m})[0]
		},
	})
	sink := newSink(t, js, "", nil)
	if _, err := publishAll(t.Context(), sink, orders("s", 0, messages)); err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	c := newConsumer(t, js, quick(t))
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if n := m.Position.Offset; n%nth == 0 {
				return nil, errors.New("poison")
			}
			return j.handle(ctx, m)
		})
	})
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, messages-messages/nth)
	// What the poison costs its neighbours is its own deliveries, and no more.
	if got, want := c.Status().Redelivered, int64(2*messages/nth); got != want {
		t.Errorf("delivered again: got %d, want %d, two for each poison", got, want)
	}
	s, err := js.Stream(deadline(t), "DLQ")
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for n := range s.CachedInfo().State.Msgs {
		m, err := s.GetMsg(deadline(t), n+1)
		if err != nil {
			t.Fatal(err)
		}
		ids[m.Header.Get(jetstream.MsgIDHeader)] = true
	}
	if got := s.CachedInfo().State.Msgs; got != messages/nth || len(ids) != messages/nth || ids[""] {
		t.Errorf("dead letters: got %d with %d ids, want %d of each", got, len(ids), messages/nth)
	}
}
