package natstransport

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
)

func TestServerRestarts(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = 3 * time.Second })
	publish(t, js, 0, 100)
	d := newDeduplicator(t, &dedup.Options{Concurrency: 4})
	o := quick(t)
	counted := &countingHandler{}
	o.Logger = slog.New(counted)
	c := newConsumer(t, js, o)
	j := newJournal()
	longest := transporttest.Pauses(t)
	began, release := make(chan struct{}, 1000), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			began <- struct{}{}
			<-release
			return j.handle(ctx, m)
		})
	})
	<-began // handlers run while the server goes away and comes back
	n.Stop()
	eventually(t, "the loss noticed", func() bool { return counted.count("jetstream fails") >= 1 })
	close(release) // some finish while there is nobody to acknowledge to
	eventually(t, "some finished", func() bool { return j.seen() > 4 })
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected again", js.Conn().IsConnected)
	publish(t, js, 100, 50)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 150)
	// Twice, if the server announced its end and yet answered before it was gone.
	if bad, good := counted.count("jetstream fails"), counted.count("jetstream answers"); bad != good || bad > 2 && longest() < time.Second {
		t.Errorf("log: got %d lines of failure and %d of recovery, want one each", bad, good)
	}
	if got := counted.count("bound"); got != 1 {
		t.Errorf("bound: got %d times, want once: the consumer was there all the time", got)
	}
}

func TestConnectionsCut(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js, producer := connect(t, n), connect(t, n)
	newStream(t, js, nil)
	d := newDeduplicator(t, nil)
	c := newConsumer(t, js, quick(t))
	j := newJournal()
	r := start(t, func(ctx context.Context) error { return c.RunBatch(ctx, d, j.handleBatch) })
	for i := range 5 {
		publish(t, producer, 40*i, 40)
		eventually(t, "received some", func() bool { return j.seen() > 40*i })
		if err := n.CutConnections(); err != nil {
			t.Fatal(err)
		}
		for _, conn := range []*nats.Conn{js.Conn(), producer.Conn()} {
			eventually(t, "connected again", func() bool { return conn.Stats().Reconnects > uint64(i) && conn.IsConnected() })
		}
	}
	answered(t, producer)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 200)
}

func TestConsumerRecreated(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 50)
	var counted outcomes
	d := newDeduplicator(t, &dedup.Options{Hooks: counted.hooks()})
	c := newConsumer(t, js, quick(t))
	j := newJournal()
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) })
	answered(t, js)
	if err := js.DeleteConsumer(deadline(t), "S", "c"); err != nil {
		t.Fatal(err)
	}
	publish(t, js, 50, 50)
	addConsumer(t, js, patiently) // it begins at the first message
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 100)
	if got := counted.count(dedup.Duplicate); got != 50 {
		t.Errorf("duplicates: got %d, want the 50 of before", got)
	}
}

// A stream that is deleted and created anew begins at 1 again: what is answered
// for a message of the old one must not be taken for one of the new.
func TestStreamRecreated(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 10)
	d := newDeduplicator(t, &dedup.Options{Concurrency: 50})
	counted := &countingHandler{}
	o := quick(t)
	o.Logger = slog.New(counted)
	c := newConsumer(t, js, o)
	j := newJournal()
	began, release := make(chan struct{}, 100), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if len(m.Value) == 1 {
				began <- struct{}{}
				<-release
			}
			return j.handle(ctx, m)
		})
	})
	for range 10 {
		<-began
	}
	if err := js.DeleteStream(deadline(t), "S"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss noticed", func() bool { return counted.count("jetstream fails") >= 1 })
	newStream(t, js, nil)
	eventually(t, "bound again", func() bool { return counted.count("bound") >= 2 })
	publish(t, js, 10, 10)
	close(release)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 20)
}

// The same while the hand is full, so that no request waits at the server whose end
// would tell of it, and with messages of the new stream in another's hands.
func TestStreamRecreatedUnnoticed(t *testing.T) {
	const messages = 2
	js := connect(t, brokertest.NewNATS(t, nil))
	slow := func(o *jetstream.ConsumerConfig) { o.AckWait = time.Minute }
	newStream(t, js, slow)
	publish(t, js, 0, messages)
	counted := &countingHandler{}
	o := quick(t)
	o.Prefetch, o.look, o.Logger = messages, time.Hour, slog.New(counted)
	d := newDeduplicator(t, &dedup.Options{Concurrency: messages})
	c := newConsumer(t, js, o)
	began, release := make(chan struct{}, messages), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			began <- struct{}{}
			<-release
			return nil, nil
		})
	})
	for range messages {
		<-began
	}
	if err := js.DeleteStream(deadline(t), "S"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss noticed", func() bool { return counted.count("jetstream fails") >= 1 })
	newStream(t, js, slow)
	publish(t, js, messages, messages)
	fetch(t, js, messages)
	close(release)
	if err := r.Stop(); err != nil { // which sends what is still to be sent
		t.Error(err)
	}
	if got := info(t, js).NumAckPending; got != messages {
		t.Errorf("of the new messages: got %d without an answer, want %d", got, messages)
	}
}

func TestOrphansAreNotAnswered(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 3)
	s := newSession(context.Background(), newConsumer(t, js, quick(t)), 8, 8)
	defer s.cancel(nil)
	b, err := s.bind(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.puller.pull(); err != nil {
		t.Fatal(err)
	}
	old := []*delivery{<-s.queue, <-s.queue, <-s.queue}
	// The stream vanishes and comes back, and another member holds its messages.
	if err := js.DeleteStream(deadline(t), "S"); err != nil {
		t.Fatal(err)
	}
	newStream(t, js, patiently)
	publish(t, js, 10, 3)
	fetch(t, js, 3)
	b.suspend() // as at the word of the server
	old[0].ack()
	old[1].nak(0)
	if _, err := b.check(deadline(t)); !gone(err) {
		t.Errorf("check: got %v, want it gone: this is another consumer of that name", err)
	}
	b.abandon()
	old[2].ack()
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := info(t, js); got.NumAckPending != 3 || got.NumRedelivered != 0 {
		t.Errorf("of the new messages: got %d without an answer and %d delivered again, want 3 and 0", got.NumAckPending, got.NumRedelivered)
	}
	for _, d := range old {
		if s.fresh(d) {
			t.Errorf("message %v would be run", d.message.Position)
		}
	}
}

// What is said of the consumer while it is looked at is not forgotten.
func TestDoubtWhileItIsChecked(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	s := newSession(context.Background(), newConsumer(t, js, quick(t)), 8, 8)
	defer s.cancel(nil)
	b, err := s.bind(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	defer b.abandon()
	b.suspend()
	doubts := b.suspensions()
	if _, err := b.check(deadline(t)); err != nil {
		t.Fatal(err)
	}
	b.complain(errDeleted)
	if b.resume(doubts) || b.current() != doubtful {
		t.Error("the binding holds, by an answer from before the doubt")
	}
	if _, why := b.puller.complaint(); !errors.Is(why, errDeleted) {
		t.Errorf("serve hears %v, want %v", why, errDeleted)
	}
	if !b.resume(b.suspensions()) || b.current() != holds {
		t.Error("the binding does not hold without a doubt")
	}
}

func TestAnswersWaitForTheConnection(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, patiently)
	publish(t, js, 0, 1)
	d := newDeduplicator(t, nil)
	c := newConsumer(t, js, quick(t))
	j := newJournal()
	began, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			close(began)
			<-release
			return j.handle(ctx, m)
		})
	})
	<-began
	n.Stop()
	// An answer written before the loss is noticed is lost with the connection.
	eventually(t, "the connection to be lost", func() bool { return !js.Conn().IsConnected() })
	close(release)
	eventually(t, "it finished", func() bool { return j.seen() == 1 })
	if err := n.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connected again", js.Conn().IsConnected)
	answered(t, js) // long before AckWait
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestClosedConnectionEndsRun(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 1)
	d := newDeduplicator(t, nil)
	j := newJournal()
	r := start(t, func(ctx context.Context) error { return newConsumer(t, js, quick(t)).Run(ctx, d, j.handle) })
	answered(t, js)
	js.Conn().Close()
	if err := r.Wait(); err == nil || !strings.Contains(err.Error(), "nats.MaxReconnects(-1)") {
		t.Errorf("got %v, want an error with the remedy", err)
	}
}

func TestRunWaitsForTheConsumer(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	counted := &countingHandler{}
	o := quick(t)
	o.Logger = slog.New(counted)
	d := newDeduplicator(t, nil)
	j := newJournal()
	r := start(t, func(ctx context.Context) error { return newConsumer(t, js, o).Run(ctx, d, j.handle) })
	eventually(t, "a word on it", func() bool { return counted.count("jetstream fails") >= 1 })
	newStream(t, js, nil)
	publish(t, js, 0, 5)
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 5)
}

func TestRunEndsWhileItWaits(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	n.Stop()
	d := newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quick(t)).Run(ctx, d, newJournal().handle)
	})
	if err := r.Stop(); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestRunRefusesUnsafeConsumer(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	d := newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quick(t)).Run(ctx, d, newJournal().handle)
	})
	publish(t, js, 0, 1)
	answered(t, js)
	if err := js.DeleteConsumer(deadline(t), "S", "c"); err != nil {
		t.Fatal(err)
	}
	addConsumer(t, js, func(o *jetstream.ConsumerConfig) { o.MaxDeliver = 5 })
	if err := r.Wait(); err == nil || !strings.Contains(err.Error(), "--max-deliver=-1") {
		t.Errorf("got %v, want a refusal with the remedy", err)
	}
}

func TestOneRunAtATime(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 1)
	d := newDeduplicator(t, nil)
	c := newConsumer(t, js, quick(t))
	r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, newJournal().handle) })
	answered(t, js)
	if err := c.Run(t.Context(), d, newJournal().handle); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("second Run: got %v", err)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// A server that answers, and then not: heartbeats of the pull request stay away.
func TestSilenceIsNoticed(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	s := newSession(context.Background(), newConsumer(t, js, quick(t)), 8, 8)
	defer s.cancel(nil)
	s.begun = time.Now().Add(-time.Minute)
	p := newPuller(s, jetstream.ConsumerConfig{}, func(time.Time) {})
	if p.silent() {
		t.Error("silent without a request")
	}
	if err := p.pull(); err != nil {
		t.Fatal(err)
	}
	p.last.Store(int64(s.now() - 3*p.heartbeat))
	if !p.silent() {
		t.Error("not silent after three intervals")
	}
	if why := p.heard(1, &nats.Msg{Header: nats.Header{"Status": {"100"}}}); why != nil {
		t.Errorf("a heartbeat: got the complaint %q, want none", why)
	}
	if p.silent() {
		t.Error("silent after a heartbeat")
	}
}

func TestStatuses(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	c := newConsumer(t, js, quick(t))
	for _, test := range []struct {
		request           int
		code, description string
		asked             int    // what stays so
		want              string // of the complaint
	}{
		{2, "100", "Idle Heartbeat", 8, ""},
		{2, "408", "Request Timeout", 5, ""},
		{2, "404", "No Messages", 5, ""},
		{2, "409", "Batch Completed", 5, ""},
		{2, "409", "Message Size Exceeds MaxBytes", 5, ""},
		{2, "409", "Leadership Change", 0, "Leadership Change"},
		{2, "409", "Server Shutdown", 0, "Server Shutdown"},
		{2, "409", "Exceeded MaxWaiting", 0, "Exceeded MaxWaiting"},
		{2, "503", "", 0, nats.ErrNoResponders.Error()},
		{2, "409", "Consumer Deleted", 0, jetstream.ErrConsumerDeleted.Error()},
		{1, "408", "Request Timeout", 8, ""}, // of a request given up
		{1, "409", "Consumer Deleted", 0, jetstream.ErrConsumerDeleted.Error()},
	} {
		p := newPuller(newSession(context.Background(), c, 8, 8), jetstream.ConsumerConfig{}, func(time.Time) {})
		for range 2 {
			if err := p.pull(); err != nil {
				t.Fatal(err)
			}
			if p.number == 1 {
				p.forget()
			}
		}
		why := p.heard(test.request, &nats.Msg{Header: nats.Header{
			"Status": {test.code}, "Description": {test.description}, "Nats-Pending-Messages": {"3"}, "Nats-Pending-Bytes": {"100"},
		}})
		got := ""
		if _, early := p.complaint(); early != nil {
			t.Errorf("%+v: serve hears %q before the binding is suspended", test, early)
		}
		if why != nil {
			p.complain(why)
			got = why.Error()
		}
		if p.hand.asked != test.asked || !strings.Contains(got, test.want) || (test.want == "") != (got == "") {
			t.Errorf("%+v: got %d asked for and %q", test, p.hand.asked, got)
		}
		p.cancel(nil)
	}
}
