package natstransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// Messages of one key are handled one after the other, also when one fails, while
// other keys go on.
func TestOrderBy(t *testing.T) {
	const keys, each = 5, 40
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	for i := range keys * each {
		id := fmt.Sprint(i)
		m := jetstreamMessage(fmt.Sprintf("s.%d", i%keys), id)
		if _, err := js.PublishMsg(deadline(t), m); err != nil {
			t.Fatal(err)
		}
	}
	d := newDeduplicator(t, &dedup.Options{Concurrency: 32, Backoff: func(int) time.Duration { return time.Millisecond }})
	o := quick(t)
	o.OrderBy = OrderByToken(2)
	c := newConsumer(t, js, o)
	var mu sync.Mutex
	last, failed, running := map[string]int{}, map[string]bool{}, map[string]bool{}
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			mu.Lock()
			if running[m.Topic] {
				t.Errorf("subject %s: two handlers at once", m.Topic)
			}
			running[m.Topic] = true
			mu.Unlock()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				delete(running, m.Topic)
			}()
			mu.Lock()
			defer mu.Unlock()
			var n int
			if _, err := fmt.Sscan(string(m.Value), &n); err != nil {
				t.Error(err)
			}
			if n%7 == 0 && !failed[string(m.Value)] {
				failed[string(m.Value)] = true
				return nil, errors.New("once more")
			}
			if before, ok := last[m.Topic]; ok && n != before+keys {
				t.Errorf("subject %s: got message %d after %d", m.Topic, n, before)
			}
			last[m.Topic] = n
			return nil, nil
		})
	})
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if len(last) != keys || last["s.0"] != keys*(each-1) {
		t.Errorf("got the last messages %v, want those of %d keys", last, keys)
	}
	if got := info(t, js).NumRedelivered; got != 0 {
		t.Errorf("redelivered: got %d, want 0: what fails is tried again in place", got)
	}
}

// A member that was killed leaves messages unanswered; its successor must not run
// later ones before them.
func TestOrderOverARestart(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Second })
	for i := range 10 {
		if _, err := js.PublishMsg(deadline(t), jetstreamMessage("s.x", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	fetch(t, js, 5) // and die
	d := newDeduplicator(t, nil)
	o := quick(t)
	o.OrderBy = OrderByToken(2)
	var mu sync.Mutex
	var got []string
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, o).Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, string(m.Value))
			return nil, nil
		})
	})
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if fmt.Sprint(got) != "[0 1 2 3 4 5 6 7 8 9]" {
		t.Errorf("got %v, want them in order", got)
	}
}

// What waits behind a message that runs is handed back at the drain too, once that
// has ended.
func TestOrderAtTheDrain(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, patiently)
	for i := range 10 {
		if _, err := js.PublishMsg(deadline(t), jetstreamMessage(fmt.Sprintf("s.%d", i%2), fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	d := newDeduplicator(t, nil)
	o := quick(t)
	o.Workers, o.Prefetch = 1, 10 // the other key is not begun
	o.OrderBy = OrderByToken(2)
	began, release := make(chan struct{}, 10), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, o).Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			began <- struct{}{}
			<-release
			return nil, nil
		})
	})
	<-began
	eventually(t, "all in hand", func() bool { return info(t, js).NumAckPending == 10 })
	r.Cancel()
	if got := len(fetch(t, js, 5)); got != 5 {
		t.Errorf("handed back at once: got %d, want the 5 of the other key", got)
	}
	close(release)
	if got := len(fetch(t, js, 4)); got != 4 {
		t.Errorf("handed back behind the one that ran: got %d, want 4", got)
	}
	if err := r.Wait(); err != nil {
		t.Error(err)
	}
}

func TestOrderIsForRun(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	o := quick(t)
	o.OrderBy = OrderByHeader("Customer")
	err := newConsumer(t, js, o).RunBatch(t.Context(), newDeduplicator(t, nil), newJournal().handleBatch)
	want(t, err, "OrderBy is for Run")
}

func TestOrderKeys(t *testing.T) {
	m := &dedup.Message{Topic: "orders.eu.42", Headers: dedup.Headers{{Key: "Customer", Value: []byte("7")}}}
	for i, want := range []string{"", "orders", "eu", "42", ""} {
		if got := OrderByToken(i)(m); got != want {
			t.Errorf("OrderByToken(%d): got %q, want %q", i, got, want)
		}
	}
	for name, want := range map[string]string{"Customer": "7", "customer": "7", "Other": ""} {
		if got := OrderByHeader(name)(m); got != want {
			t.Errorf("OrderByHeader(%q): got %q, want %q", name, got, want)
		}
	}
}

// expire makes AckWait pass, for the member, of all that it has in hand.
func expire(c *Consumer) {
	s := c.session.Load()
	s.hand.mu.Lock()
	defer s.hand.mu.Unlock()
	for d := s.hand.first; d != nil; d = d.next {
		d.alive.Store(int64(s.now() - d.binding.ackWait))
	}
}

// A message whose time has run out, as in an outage, comes again after AckWait. What
// was published after it comes sooner, and must not pass it.
func TestOrderAfterAnOutage(t *testing.T) {
	for _, where := range []string{"in its handler", "in the queue"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			js := connect(t, brokertest.NewNATS(t, nil))
			// It is waited for for twice the longest of them, and comes in half of that.
			newStream(t, js, func(o *jetstream.ConsumerConfig) { o.BackOff = []time.Duration{time.Second, 5 * time.Second} })
			publishKeys := func(subjects ...string) {
				for i, subject := range subjects {
					if _, err := js.PublishMsg(deadline(t), jetstreamMessage(subject, fmt.Sprint(subject, i, time.Now()))); err != nil {
						t.Fatal(err)
					}
				}
			}
			d := newDeduplicator(t, &dedup.Options{Backoff: func(int) time.Duration { return time.Millisecond }})
			o := quick(t)
			o.Workers, o.Prefetch = 1, 10
			o.OrderBy = OrderByToken(2)
			c := newConsumer(t, js, o)
			began, release := make(chan struct{}, 1), make(chan struct{})
			var mu sync.Mutex
			var got []int64
			r := start(t, func(ctx context.Context) error {
				return c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
					select {
					case began <- struct{}{}:
					default:
					}
					select {
					case <-release:
					default:
						if where == "in its handler" {
							return nil, errors.New("tried again in place")
						}
						<-release
					}
					mu.Lock()
					defer mu.Unlock()
					if m.Topic == "s.key" {
						got = append(got, m.Position.Offset)
					}
					return nil, nil
				})
			})
			if where == "in its handler" {
				publishKeys("s.key")
				<-began
			} else {
				publishKeys("s.other")
				<-began
				publishKeys("s.key")
				eventually(t, "both in hand", func() bool { return c.Status().InHand == 2 })
			}
			expire(c)
			if where == "in the queue" {
				close(release)
			}
			eventually(t, "a delivery given up", func() bool {
				expire(c)
				return c.Status().StaleDeliveries > 0
			})
			publishKeys("s.key", "s.key")
			if where == "in its handler" {
				eventually(t, "what follows it received", func() bool { return info(t, js).Delivered.Consumer >= 3 })
				close(release)
			}
			answered(t, js)
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			if !slices.IsSorted(got) || len(got) != 3 {
				t.Errorf("got the sequences %v handled, want three in their order", got)
			}
		})
	}
}

// What should come again and does not, because another member has it, is not waited
// for for ever.
func TestOrderGivesUp(t *testing.T) {
	const ackWait = 200 * time.Millisecond
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = ackWait })
	o := quick(t)
	o.OrderBy = OrderByToken(2)
	c := newConsumer(t, js, o)
	began := make(chan struct{}, 100)
	j := newJournal()
	d := newDeduplicator(t, &dedup.Options{Backoff: func(int) time.Duration { return time.Millisecond }})
	r := start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			if m.Position.Offset == 1 {
				select {
				case began <- struct{}{}:
				default:
				}
				return nil, errors.New("not here")
			}
			return j.handle(ctx, m)
		})
	})
	publish := func(value string) {
		if _, err := js.PublishMsg(deadline(t), jetstreamMessage("s.key", value)); err != nil {
			t.Fatal(err)
		}
	}
	publish("1")
	<-began
	stream, err := js.Stream(deadline(t), "S")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(deadline(t), 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the delivery given up", func() bool {
		expire(c)
		return c.Status().StaleDeliveries > 0
	})
	publish("2")
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	j.check(t, 1)
}
