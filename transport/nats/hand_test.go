package natstransport

import (
	"testing"
	"time"
)

const kilobyte = 1 << 10

func TestHandBoundsMessages(t *testing.T) {
	h := newHand(100, 100, 1<<30)
	if n, _ := h.ask(kilobyte, 0, 0); n != 100 {
		t.Fatalf("first request: got %d messages, want 100", n)
	}
	if n, _ := h.ask(kilobyte, 0, 0); n != 0 {
		t.Errorf("with nothing free: got %d messages, want none", n)
	}
	ds := make([]*delivery, 100)
	for i := range ds {
		ds[i] = &delivery{size: 100}
		h.take(ds[i])
	}
	for _, d := range ds[:24] {
		h.drop(d, 0)
	}
	if n, _ := h.ask(kilobyte, 0, 0); n != 0 {
		t.Errorf("with 24 of 100 free: got %d messages, want none: a request each would cost more than they", n)
	}
	h.drop(ds[24], 0)
	h.drop(ds[24], 0) // once is enough
	if n, _ := h.ask(kilobyte, 10, 0); n != 10 {
		t.Errorf("with 25 free and at most 10 in a request: got %d messages, want 10", n)
	}
	h.unask(10, 1<<30)
	if n, _ := h.ask(kilobyte, 0, 0); n != 25 {
		t.Errorf("with 25 free: got %d messages, want 25", n)
	}
}

func TestHandBoundsBytes(t *testing.T) {
	const limit = 10 * kilobyte
	h := newHand(100, 100, limit)
	_, bytes := h.ask(kilobyte, 0, 0)
	if bytes != limit {
		t.Fatalf("first request: got %d bytes, want all %d", bytes, limit)
	}
	var ds []*delivery
	for range 9 {
		d := &delivery{size: kilobyte}
		ds = append(ds, d)
		h.take(d)
	}
	h.unask(91, kilobyte) // it did not fit
	if n, bytes := h.ask(kilobyte, 0, 0); n == 0 || bytes != kilobyte {
		t.Errorf("with 1 KiB free: got %d messages and %d bytes, want 1 KiB", n, bytes)
	}
	h.unask(100, kilobyte)
	if n, _ := h.ask(2*kilobyte, 0, 0); n != 0 {
		t.Errorf("with less free than a message can have: got %d messages, want none", n)
	}
	for _, d := range ds {
		h.drop(d, 0)
	}
	if _, bytes := h.ask(20*kilobyte, 0, 0); bytes != 20*kilobyte {
		t.Errorf("with nothing in hand: got %d bytes, want the 20 KiB that one message can have", bytes)
	}
	if _, bytes := h.ask(kilobyte, 0, 0); bytes != 0 {
		t.Errorf("with all asked for: got %d bytes, want none", bytes)
	}
}

func TestHandFollowsThePace(t *testing.T) {
	h := newHand(64, 1024, 1<<30)
	now := time.Duration(0)
	settle := func(n int, each time.Duration) {
		for range n {
			d := &delivery{}
			h.take(d)
			now += each
			h.drop(d, now)
		}
	}
	settle(5000, 10*time.Microsecond)
	if h.limit != 1024 {
		t.Errorf("with fast handlers: got a limit of %d, want 1024", h.limit)
	}
	settle(5000, 100*time.Millisecond)
	if h.limit != 64 {
		t.Errorf("with slow handlers: got a limit of %d, want 64", h.limit)
	}
	h.bound(10)
	if settle(1000, 10*time.Microsecond); h.limit != 10 {
		t.Errorf("with a bound of 10: got a limit of %d", h.limit)
	}
}
