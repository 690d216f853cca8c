package natstransport

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestRunProcessesEachMessageOnce(t *testing.T) {
	const n = 600 // several pulls
	for _, mode := range []string{"run", "batch", "confirm", "confirm batch"} {
		t.Run(mode, func(t *testing.T) {
			js := connect(t, brokertest.NewNATS(t, nil))
			newStream(t, js, patiently)
			publish(t, js, 0, n)
			publish(t, js, 0, n/3) // again, by the same producer
			var counted outcomes
			d := newDeduplicator(t, &dedup.Options{Hooks: counted.hooks()})
			o := quick(t)
			o.BatchSize = 50
			o.ConfirmAcks = strings.HasPrefix(mode, "confirm")
			c := newConsumer(t, js, o)
			j := newJournal()
			r := start(t, func(ctx context.Context) error {
				if strings.HasSuffix(mode, "batch") {
					return c.RunBatch(ctx, d, j.handleBatch)
				}
				return c.Run(ctx, d, j.handle)
			})
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Fatal(err)
			}
			j.check(t, n)
			if got := counted.count(dedup.Duplicate); got != n/3 {
				t.Errorf("duplicates: got %d, want %d", got, n/3)
			}
			if got := info(t, js).NumRedelivered; got != 0 {
				t.Errorf("redelivered: got %d, want 0", got)
			}
		})
	}
}

func TestTwoMembersShareTheMessages(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	newStream(t, js, nil)
	d := newDeduplicator(t, nil)
	j := newJournal()
	var runs []*run
	for range 2 {
		c := newConsumer(t, connect(t, n), quick(t))
		runs = append(runs, start(t, func(ctx context.Context) error { return c.Run(ctx, d, j.handle) }))
	}
	publish(t, js, 0, 300)
	answered(t, js)
	for _, r := range runs {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	j.check(t, 300)
}

func TestMessageFields(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 2)
	type seen struct {
		topic, value, headers, position string
		delivery                        int
		published                       time.Time
	}
	ch := make(chan seen, 10)
	var failed atomic.Bool
	d := newDeduplicator(t, nil)
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quick(t)).Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if string(m.Value) != "1" {
				return nil, nil
			}
			ch <- seen{m.Topic, string(m.Value), fmt.Sprintf("%s", m.Headers), m.Position.String(), m.Delivery, m.Published}
			if !failed.Swap(true) {
				return nil, dedup.RetryAfter(errors.New("once more"), 0)
			}
			return nil, nil
		})
	})
	for delivery := 1; delivery <= 2; delivery++ {
		got := <-ch
		if age := time.Since(got.published); age < 0 || age > time.Minute {
			t.Errorf("published: got %v ago", age)
		}
		got.published = time.Time{}
		want := seen{topic: "s.1", value: "1", headers: "[{Idempotency-Key 1}]", position: "S/0@2", delivery: delivery}
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

// The server redelivers after AckWait what nobody says a word about.
func TestHandlerOutlivesAckWait(t *testing.T) {
	const ackWait = time.Second
	for name, change := range map[string]func(*jetstream.ConsumerConfig){
		"ack wait": func(o *jetstream.ConsumerConfig) { o.AckWait = ackWait },
		"backoff": func(o *jetstream.ConsumerConfig) {
			o.AckWait, o.BackOff = time.Minute, []time.Duration{ackWait, 2 * ackWait}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := connect(t, brokertest.NewNATS(t, nil))
			newStream(t, js, change)
			publish(t, js, 0, 40) // more than the 8 workers: most of them wait in the queue
			var counted outcomes
			d := newDeduplicator(t, &dedup.Options{Concurrency: 100, Hooks: counted.hooks()})
			o := quick(t)
			o.Workers, o.Prefetch = 8, 40
			c := newConsumer(t, js, o)
			j := newJournal()
			release := make(chan struct{})
			r := start(t, func(ctx context.Context) error {
				return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
					<-release
					return j.handle(ctx, m)
				})
			})
			longest := transporttest.Pauses(t)
			over := time.After(10*ackWait + ackWait/2)
			eventually(t, "all in hand", func() bool { return info(t, js).NumAckPending == 40 })
			<-over
			close(release)
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			j.check(t, 40)
			// Where this process itself stands still, nobody can say a word in time.
			got, pause := counted.count(dedup.Duplicate)+counted.count(dedup.Busy), longest()
			if got != 0 && pause < ackWait/4 {
				t.Errorf("deliveries of a message in hand: got %d, want 0; the longest pause of this process was %v", got, pause)
			}
		})
	}
}

// A handler that hangs past its time loses its lease, and nobody says a word for its
// message any more: it comes again, and another run gets through.
func TestHandlerThatHangsLosesItsMessage(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = 300 * time.Millisecond })
	publish(t, js, 0, 1)
	store := memstore.New(nil)
	hung, other := newDeduplicatorOver(t, store, &dedup.Options{Lease: 300 * time.Millisecond, HandlerTimeout: 200 * time.Millisecond}), newDeduplicatorOver(t, store, nil)
	began, release := make(chan struct{}), make(chan struct{})
	first := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quick(t)).Run(ctx, hung, func(context.Context, *dedup.Message) ([]byte, error) {
			close(began)
			<-release // whatever its context says
			return nil, nil
		})
	})
	<-began
	j := newJournal()
	second := start(t, func(ctx context.Context) error { return newConsumer(t, js, quick(t)).Run(ctx, other, j.handle) })
	eventually(t, "the other run", func() bool { return j.seen() == 1 })
	answered(t, js)
	close(release)
	for _, r := range []*run{first, second} {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	j.check(t, 1)
	if !j.flagged["0"] {
		t.Error("the second run was not Ambiguous")
	}
}

func TestPoisonIsParkedOnceThenTerminated(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "DLQ", Subjects: []string{"dead.>"}}); err != nil {
		t.Fatal(err)
	}
	advisories, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c")
	if err != nil {
		t.Fatal(err)
	}
	dead, err := NewSink(js, "dead.s", &SinkConfig{DeadLetters: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	d := newDeduplicator(t, &dedup.Options{
		MaxAttempts: 3,
		Backoff:     func(int) time.Duration { return 0 },
		DeadLetter: func(ctx context.Context, m *dedup.Message, _ error) error {
			return dead.Publish(ctx, []*dedup.Message{m})[0]
		},
	})
	j := newJournal()
	var tries atomic.Int32
	c := newConsumer(t, js, quick(t))
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if string(m.Value) == "7" {
				tries.Add(1)
				return nil, errors.New("cannot be\nprocessed")
			}
			return j.handle(ctx, m)
		})
	})
	publish(t, js, 0, 50)
	publish(t, js, 7, 1) // the poison again: parked already
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 49)
	if got := tries.Load(); got != 3 {
		t.Errorf("runs of the poison: got %d, want 3", got)
	}
	s, err := js.Stream(deadline(t), "DLQ")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("dead letters: got %d, want 1", got)
	}
	for range 2 {
		m, err := advisories.NextMsgWithContext(deadline(t))
		if err != nil {
			t.Fatalf("advisory of a terminated message: %v", err)
		}
		if !strings.Contains(string(m.Data), "parked: ") {
			t.Errorf("advisory: got %s, want the reason in it", m.Data)
		}
	}
}

func TestHaltStopsAndHandsBackTheRest(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 30)
	d := newDeduplicator(t, nil)
	o := quick(t)
	o.Workers, o.Prefetch = 1, 30
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, o).Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			return nil, dedup.Permanent(errors.New("no dead letters here"))
		})
	})
	err := r.Wait()
	if !errors.Is(err, dedup.ErrHalted) || !strings.Contains(err.Error(), "message 1 of stream S") {
		t.Errorf("got %v, want ErrHalted and the message's place", err)
	}
	// All but the first are available at once, and not only after AckWait.
	if got := len(fetch(t, js, 29)); got != 29 {
		t.Errorf("handed back: got %d, want 29", got)
	}
}

// fetch takes n messages from the consumer with the client library's own means.
func fetch(t *testing.T, js jetstream.JetStream, n int) (ms []jetstream.Msg) {
	t.Helper()
	c, err := js.Consumer(deadline(t), "S", "c")
	if err != nil {
		t.Fatal(err)
	}
	batch, err := c.Fetch(n, jetstream.FetchMaxWait(2*time.Minute), jetstream.FetchHeartbeat(50*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		ms = append(ms, m)
	}
	if err := batch.Error(); err != nil {
		t.Fatal(err)
	}
	return ms
}

func TestDrainHandsBackWhatHasNotStarted(t *testing.T) {
	for _, mode := range []string{"run", "batch"} {
		t.Run(mode, func(t *testing.T) {
			js := connect(t, brokertest.NewNATS(t, nil))
			newStream(t, js, patiently)
			publish(t, js, 0, 40)
			d := newDeduplicator(t, &dedup.Options{Concurrency: 2})
			o := quick(t)
			o.Workers, o.Prefetch, o.BatchSize = 8, 40, 5
			c := newConsumer(t, js, o)
			j := newJournal()
			began, release := make(chan struct{}, 40), make(chan struct{})
			r := start(t, func(ctx context.Context) error {
				if mode == "batch" {
					return c.RunBatch(ctx, d, func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
						began <- struct{}{}
						<-release
						return j.handleBatch(ctx, ms)
					})
				}
				return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
					began <- struct{}{}
					<-release
					return j.handle(ctx, m)
				})
			})
			<-began
			<-began
			eventually(t, "all in hand", func() bool { return info(t, js).NumAckPending == 40 })
			r.Cancel()
			// What no worker had taken comes back while the two handlers run.
			waiting := 40 - 8
			if mode == "batch" {
				waiting = 40 - batchesAtOnce*5
			}
			back := fetch(t, js, waiting)
			if len(back) != waiting {
				t.Errorf("handed back at once: got %d, want %d", len(back), waiting)
			}
			close(release)
			if err := r.Wait(); err != nil {
				t.Error(err)
			}
			started := j.seen()
			if mode == "run" && started != 2 {
				t.Errorf("handlers run: got %d, want the 2 that had begun", started)
			}
			if rest := 40 - started - waiting; rest > 0 {
				if got := len(fetch(t, js, rest)); got != rest {
					t.Errorf("handed back later: got %d, want %d", got, rest)
				}
			}
			if got := info(t, js).NumAckPending; got != 40-started {
				t.Errorf("without an answer: got %d, want %d, which the test has fetched", got, 40-started)
			}
		})
	}
}

func TestDrainCancelsAfterItsTimeout(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 1)
	d := newDeduplicator(t, nil)
	o := quick(t)
	o.DrainTimeout = 50 * time.Millisecond
	began, cause := make(chan struct{}), make(chan error, 1)
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, o).Run(ctx, d, func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			close(began)
			<-ctx.Done()
			cause <- context.Cause(ctx)
			return nil, ctx.Err()
		})
	})
	<-began
	if err := r.Stop(); err != nil {
		t.Errorf("got %v, want nil: the handler returned", err)
	}
	if err := <-cause; !errors.Is(err, ErrRevoked) {
		t.Errorf("cause: got %v, want ErrRevoked", err)
	}
}

func TestDrainReportsStragglers(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	publish(t, js, 0, 1)
	d := newDeduplicator(t, nil)
	o := quick(t)
	o.DrainTimeout = 50 * time.Millisecond
	began, release := make(chan struct{}), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, o).Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			close(began)
			<-release
			return nil, nil
		})
	})
	<-began
	err := r.Stop()
	if err == nil || !strings.Contains(err.Error(), "1 handlers still run") {
		t.Errorf("got %v, want an error that counts the handler", err)
	}
	close(release)
}

// scripted stands for a Deduplicator.
type scripted struct {
	do func(ctx context.Context, m *dedup.Message, h dedup.Handler) dedup.Result
}

func (s scripted) Do(ctx context.Context, m *dedup.Message, h dedup.Handler) dedup.Result {
	return s.do(ctx, m, h)
}

func (s scripted) DoBatch(context.Context, []*dedup.Message, dedup.BatchHandler) []dedup.Result {
	panic("not used")
}

func TestUncertainIsNotAnswered(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = 500 * time.Millisecond })
	naks, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_NAKED.S.c")
	if err != nil {
		t.Fatal(err)
	}
	publish(t, js, 0, 1)
	times, began := make(chan time.Time, 10), time.Now()
	d := scripted{func(context.Context, *dedup.Message, dedup.Handler) dedup.Result {
		times <- time.Now()
		return dedup.Result{Outcome: dedup.Uncertain}
	}}
	r := start(t, func(ctx context.Context) error { return newConsumer(t, js, quick(t)).runSingly(ctx, d, nil) })
	<-times
	if got := (<-times).Sub(began); got < 400*time.Millisecond { // the server counts from before the first
		t.Errorf("came again after %v, want AckWait, 500ms", got)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if m, err := naks.NextMsg(10 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("advisory of a Nak: got %v, %v, want none", m, err)
	}
}

// While the member sleeps, nobody says a word for it, and the server delivers what
// it holds to others.
func TestStaleDeliveryIsDropped(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 3)
	o := quick(t)
	o.Workers = 1
	c := newConsumer(t, js, o)
	s := newSession(context.Background(), c, 8, 8)
	b, err := s.bind(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.puller.pull(); err != nil {
		t.Fatal(err)
	}
	var ds []*delivery
	for range 3 {
		ds = append(ds, <-s.queue)
	}
	ds[0].alive.Store(int64(s.now() - time.Minute)) // as if the process had been stopped
	for _, d := range ds {
		s.queue <- d
	}
	if got := s.next(); got != ds[1] {
		t.Errorf("got message %v, want the second: the first is stale", got.message.Position)
	}
	if got := len(s.hand.of(b, nil)); got != 2 {
		t.Errorf("in hand: got %d, want 2", got)
	}
	s.settle(ds[0], dedup.Result{Outcome: dedup.Failed}) // running when the process was stopped
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if got := info(t, js).NumAckPending; got != 3 {
		t.Errorf("without an answer: got %d, want 3: a stale delivery is not handed back", got)
	}
	b.stopPulling()
	b.close()
	s.cancel(nil)
}

func TestLostAckIsAnsweredFromTheRecord(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = 300 * time.Millisecond })
	publish(t, js, 0, 1)
	var counted outcomes
	d := newDeduplicator(t, &dedup.Options{Hooks: counted.hooks()})
	j := newJournal()
	m := fetch(t, js, 1)[0]
	message, err := Message(m)
	if err != nil {
		t.Fatal(err)
	}
	if r := d.Do(deadline(t), message, j.handle); !r.Settled() {
		t.Fatalf("got %+v, want it settled", r)
	}
	// No Ack. It comes again, to a Consumer.
	r := start(t, func(ctx context.Context) error { return newConsumer(t, js, quick(t)).Run(ctx, d, j.handle) })
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 1)
	if got := counted.count(dedup.Duplicate); got == 0 {
		t.Error("duplicates: got none, want one, or more where this process stood still")
	}
}

// TestRetryAfterForEver: a message that asks for the longest delay there is does not
// come again, and others are not held up.
func TestRetryAfterForEver(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	var runs atomic.Int64
	rest := make(chan struct{}, 100)
	d := newDeduplicator(t, &dedup.Options{Backoff: func(int) time.Duration { return math.MaxInt64 }})
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quick(t)).Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			switch string(m.Value) {
			case "v0":
				runs.Add(1)
				return nil, dedup.RetryAfter(errors.New("never again"), math.MaxInt64)
			case "v1":
				runs.Add(1)
				return nil, errors.New("what Backoff says")
			}
			rest <- struct{}{}
			return nil, nil
		})
	})
	for i := range 2 {
		publishOne(t, js, "s.key", fmt.Sprint("v", i))
	}
	for i := range 20 { // each a round to the server
		publishOne(t, js, "s.key", fmt.Sprint("v", i+2))
		<-rest
		time.Sleep(minRetry)
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("got %d runs of two messages that are not to come again, want 2", n)
	}
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
}

func TestBusyAndFailedComeAgainNoSooner(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	publish(t, js, 0, 1)
	results := []dedup.Result{
		{Outcome: dedup.Busy, RetryAfter: 300 * time.Millisecond},
		{Outcome: dedup.Unavailable, RetryAfter: 200 * time.Millisecond},
		{Outcome: dedup.Failed},
	}
	var mu sync.Mutex
	var times []time.Time
	d := scripted{func(_ context.Context, m *dedup.Message, _ dedup.Handler) dedup.Result {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		return results[min(len(times), len(results))-1]
	}}
	r := start(t, func(ctx context.Context) error { return newConsumer(t, js, quick(t)).runSingly(ctx, d, nil) })
	eventually(t, "four deliveries", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(times) >= 4
	})
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	for i, result := range results {
		want := max(result.RetryAfter, minRetry)
		if got := times[i+1].Sub(times[i]); got < want-5*time.Millisecond {
			t.Errorf("%v: came again after %v, want no sooner than %v", result.Outcome, got, want)
		}
	}
}
