package natstransport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// holding is a binding whose consumer has unanswered messages, at delivery 5: it waits
// for them.
type holding struct {
	*binding
	warned *countingHandler
}

func newHolding(t *testing.T) *holding {
	t.Helper()
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Minute })
	h := &holding{warned: &countingHandler{}}
	config := quickly(t)
	config.Logger = slog.New(h.warned)
	s := newSession(context.Background(), newConsumer(t, js, config), 8, 8)
	t.Cleanup(func() { s.cancel(nil) })
	var err error
	if h.binding, err = s.bind(deadline(t)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.abandon)
	if h.said(5, 3) == 0 {
		t.Fatal("it does not wait for what is unanswered")
	}
	return h
}

// said is holdBack for a consumer that made so many deliveries, and has so many unanswered.
func (h *holding) said(delivered uint64, pending int) (wait time.Duration) {
	return h.holdBack(&jetstream.ConsumerInfo{NumAckPending: pending, Delivered: jetstream.SequenceInfo{Consumer: delivered}})
}

// requestsEnded makes it so long ago that the last request ended.
func (h *holding) requestsEnded(ago time.Duration) {
	h.puller.mu.Lock()
	defer h.puller.mu.Unlock()
	h.puller.sent = h.now() - h.puller.expires - h.config.slack - ago
}

func (h *holding) delivery(n int64, times int) *delivery {
	return &delivery{binding: h.binding, message: dedup.Message{Topic: "s.key", Position: dedup.Position{Offset: n}, Delivery: times}}
}

// A count that moves tells of another member only if none of our own requests can have
// been served, also not between two looks.
func TestAnotherMemberIsTold(t *testing.T) {
	for _, tt := range []struct {
		name      string
		ended     time.Duration // how long ago the requests did
		looked    time.Duration // how long ago the count was looked at before
		delivered uint64
		shared    bool
	}{
		{"a request is served yet", -time.Hour, time.Second, 6, false},
		{"the last was served since the last look", time.Millisecond, time.Second, 6, false},
		{"the server forgot one", time.Hour, time.Second, 4, false},
		{"nobody else can it be", time.Hour, time.Second, 6, true},
	} {
		h := newHolding(t)
		h.requestsEnded(tt.ended)
		h.hold.seen = h.now() - tt.looked
		wait := h.said(tt.delivered, 3)
		if h.shared() != tt.shared || (wait == 0) != tt.shared || h.warned.count("another member") > 0 != tt.shared {
			t.Errorf("%s: got shared %v, wait %v, want shared %v", tt.name, h.shared(), wait, tt.shared)
		}
		if wait := h.said(tt.delivered+3, 3); tt.shared && wait != 0 {
			t.Errorf("%s: the next doubt: got wait %v, want none", tt.name, wait)
		}
	}
}

// What was found out about what comes again counts no more when more may be missing.
func TestInterruptedGatheringBeginsAnew(t *testing.T) {
	h := newHolding(t)
	gather := func(delivered uint64) {
		h.hold.left = 0
		h.said(delivered, 3)
		if !h.hold.gathering {
			t.Fatal("it does not gather")
		}
	}
	gather(5)
	h.order.first(h.delivery(5, 1)) // it is new
	h.interrupt()
	if err := h.resubscribe(); err != nil {
		t.Fatal(err)
	}
	h.said(8, 3)
	gather(8)
	if h.gathered() {
		t.Error("all is said to be there before anything came")
	}
}

// Something new may come while the server is asked.
func TestCountIsNotSetBackWhileGathering(t *testing.T) {
	h := newHolding(t)
	h.hold.left = 0
	h.said(5, 3)
	for n := uint64(6); n <= 7; n++ {
		if n == 7 {
			h.said(5, 0) // of before the server made delivery 6
		}
		if _, err := h.enter(h.flow, h.delivery(int64(n), 1), n); err != nil {
			t.Errorf("delivery %d: got %v, want it taken", n, err)
		}
	}
}

// A delivery that expired in hand, and was passed by what came again of it, is not
// waited for.
func TestOldCopyIsNotMissed(t *testing.T) {
	h := newHolding(t)
	first, old, again := h.delivery(3, 1), h.delivery(5, 1), h.delivery(5, 2)
	for _, d := range []*delivery{first, old, again} {
		h.order.first(d)
	}
	if got := h.order.next(first, true, 0); got != again {
		t.Fatalf("got %v, want what came again", got)
	}
	if got := h.order.next(again, true, 0); got != old {
		t.Fatalf("got %v, want the one that expired", got)
	}
	h.order.next(old, false, time.Hour)
	last := h.delivery(6, 1)
	if h.order.first(last); h.order.early(last) {
		t.Error("6 waits for 5, which was settled")
	}
}

// A message that failed at a drain comes again before what was behind it, however long
// it asked to be left alone.
func TestOrderAfterAFailureAtTheDrain(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.AckWait = time.Second })
	d := newDeduplicator(t, nil)
	tried, release := make(chan struct{}, 1), make(chan struct{})
	r := start(t, func(ctx context.Context) error {
		return newConsumer(t, js, quickly(t)).Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			tried <- struct{}{}
			<-release
			return nil, dedup.RetryAfter(dedup.Transient(errors.New("later")), time.Minute)
		})
	})
	for i := range 3 {
		publishOne(t, js, "s.key", fmt.Sprint("v", i))
	}
	<-tried
	eventually(t, "all are delivered", func() bool { return info(t, js).NumAckPending == 3 })
	stopped := make(chan error, 1)
	go func() { stopped <- r.Stop() }()
	eventually(t, "the drain has begun", func() bool { return info(t, js).NumWaiting == 0 })
	close(release)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	var o ordered
	r = start(t, func(ctx context.Context) error { return newConsumer(t, js, quickly(t)).Run(ctx, d, o.handle) })
	answered(t, js)
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	o.check(t, 3)
}
