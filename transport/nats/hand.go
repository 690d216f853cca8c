package natstransport

import (
	"sync"
	"time"
)

// hand holds what was delivered and is not yet answered, and bounds, in messages
// and bytes, that together with what was asked for and has not come.
type hand struct {
	room chan struct{} // has an element after a good part of it became free

	mu         sync.Mutex
	limit      int // on messages, now
	least      int // of limit
	most       int // of limit
	limitBytes int
	settled    int           // since
	since      time.Duration // when limit was last looked at, as session.now
	held       int
	heldBytes  int
	asked      int // messages that the requests under way may still bring
	askedBytes int
	mean       int       // of the sizes of messages, moving; 0: none came yet
	first      *delivery // of those held, in the order of their coming
	last       *delivery
}

// aim: what is in hand should be what is settled in about that time. More would keep
// messages waiting behind slow handlers here, while other members are idle.
const aim = time.Second

// newHand makes a hand whose limit follows how fast messages are settled, between
// least and most.
func newHand(least, most, bytes int) *hand {
	least = min(least, most)
	return &hand{limit: least, least: least, most: most, limitBytes: bytes, room: make(chan struct{}, 1)}
}

// bound lowers the limit's bound.
func (h *hand) bound(most int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.most = min(h.most, most)
	h.least = min(h.least, most)
	h.limit = min(h.limit, most)
}

// pace moves the limit after as many messages as it allows were settled. The caller
// holds mu.
func (h *hand) pace(now time.Duration) {
	if h.settled++; h.settled < h.limit {
		return
	}
	switch took := now - h.since; {
	case took < aim/2:
		h.limit = min(2*h.limit, h.most)
	case took > 2*aim:
		h.limit = max(h.limit/2, h.least)
	}
	h.settled, h.since = 0, now
}

// take adds a delivery that has come.
func (h *hand) take(d *delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.held, d.prev = true, h.last
	if h.last == nil {
		h.first = d
	} else {
		h.last.next = d
	}
	h.last = d
	h.held++
	h.heldBytes += d.size
	h.asked = max(h.asked-1, 0) // more may come of a request that was given up
	h.askedBytes = max(h.askedBytes-d.size, 0)
	h.mean = (7*h.mean+d.size)/8 + 1
}

// drop takes out a delivery that needs no further answer.
func (h *hand) drop(d *delivery, now time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !d.held {
		return
	}
	if d.prev == nil {
		h.first = d.next
	} else {
		d.prev.next = d.next
	}
	if d.next == nil {
		h.last = d.prev
	} else {
		d.next.prev = d.prev
	}
	d.held, d.prev, d.next = false, nil, nil
	h.held--
	h.heldBytes -= d.size
	h.pace(now)
	if h.limit-h.held-h.asked >= h.threshold() {
		h.wake()
	}
}

func (h *hand) wake() {
	select {
	case h.room <- struct{}{}:
	default:
	}
}

// threshold is how much must be free to ask for more: a request for each message
// would cost more than the messages, and with one for all of them the server would
// stand still until the next.
func (h *hand) threshold() int { return max(h.limit/4, 1) }

// ask reserves room for a request, and returns how many messages and bytes it may
// bring; none if it has to wait. largest is the size of the largest message that
// can come; the other two are the consumer's own limits, 0 for none.
func (h *hand) ask(largest, maxMessages, maxBytes int) (messages, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	messages, bytes = h.limit-h.held-h.asked, h.limitBytes-h.heldBytes-h.askedBytes
	if messages < h.threshold() {
		return 0, 0
	}
	if maxMessages > 0 {
		messages = min(messages, maxMessages)
	}
	// Bytes reserved are bytes that no other request can have, so not all of them;
	// and always enough for one message, else it could never come.
	switch {
	case h.held == 0 && h.asked == 0:
		bytes = max(bytes, largest)
	case bytes < largest:
		return 0, 0
	}
	if fair := max(4*messages*h.mean, largest); h.mean > 0 {
		bytes = min(bytes, fair)
	}
	if maxBytes > 0 {
		bytes = min(bytes, maxBytes)
	}
	h.asked += messages
	h.askedBytes += bytes
	return messages, bytes
}

// insist is ask for what comes again, whether there is room or not.
func (h *hand) insist(messages, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked += messages
	h.askedBytes += bytes
}

// unask gives back what a request that has ended did not bring.
func (h *hand) unask(messages, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = max(h.asked-messages, 0)
	h.askedBytes = max(h.askedBytes-bytes, 0)
}

// forget gives back what was reserved for all requests.
func (h *hand) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked, h.askedBytes = 0, 0
}

func (h *hand) waiting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked > 0
}

// count returns how many messages are in hand.
func (h *hand) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// of returns what is held of the binding, in to.
func (h *hand) of(b *binding, to []*delivery) []*delivery {
	h.mu.Lock()
	defer h.mu.Unlock()
	for d := h.first; d != nil; d = d.next {
		if d.binding == b {
			to = append(to, d)
		}
	}
	return to
}
