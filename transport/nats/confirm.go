package natstransport

import (
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// confirms are the acknowledgements of a binding that wait for the server's
// confirmation, any number of them at once. Their deliveries stay in hand, so that
// Prefetch bounds them.
type confirms struct {
	binding *binding
	inbox   string // where confirmations arrive: inbox.N for acknowledgement N
	sub     *nats.Subscription

	mu      sync.Mutex
	number  int // of the last
	waiting map[int]unconfirmed
	none    chan struct{} // closed when nothing waits, if somebody wants to know
}

type unconfirmed struct {
	delivery *delivery
	sent     time.Duration // as session.now
}

func newConfirms(b *binding) (*confirms, error) {
	c := &confirms{binding: b, inbox: b.conn.NewInbox(), waiting: make(map[int]unconfirmed)}
	sub, err := b.conn.Subscribe(c.inbox+".*", c.heard)
	if err != nil {
		return nil, err
	}
	_ = sub.SetPendingLimits(-1, -1) // Prefetch is the limit
	c.sub = sub
	return c, nil
}

// ack sends the acknowledgement of d, which leaves the hand when it is confirmed or
// known not to be.
func (c *confirms) ack(d *delivery) error {
	c.mu.Lock()
	c.number++
	n := c.number
	c.waiting[n] = unconfirmed{d, c.binding.now()}
	c.mu.Unlock()
	err := c.binding.conn.PublishRequest(d.reply, c.inbox+"."+strconv.Itoa(n), ackBody)
	if err != nil {
		c.take(n)
	}
	return err
}

// heard is called for each confirmation, one after the other.
func (c *confirms) heard(m *nats.Msg) {
	n, err := strconv.Atoi(strings.TrimPrefix(m.Subject, c.inbox+"."))
	if err != nil {
		return
	}
	d := c.take(n)
	if d == nil {
		return
	}
	if status := m.Header.Get("Status"); status != "" {
		c.failed(d, "status", status)
	}
	c.binding.drop(d)
}

// expire gives up what has waited for longer than patience.
func (c *confirms) expire(patience time.Duration) {
	now := c.binding.now()
	var late []*delivery
	c.mu.Lock()
	for n, u := range c.waiting {
		if now-u.sent >= patience {
			late = append(late, u.delivery)
			c.remove(n)
		}
	}
	c.mu.Unlock()
	for _, d := range late {
		c.failed(d, "after", patience)
		c.binding.drop(d)
	}
}

func (c *confirms) failed(d *delivery, key string, value any) {
	c.binding.consumer.counts.ackFailures.Add(1)
	c.binding.log.Debug("an acknowledgement was not confirmed; the message comes again, as a duplicate", "position", d.message.Position.String(), key, value)
}

// take returns the delivery of acknowledgement n, or nil if it waits no more.
func (c *confirms) take(n int) *delivery {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.waiting[n].delivery
	c.remove(n)
	return d
}

// remove takes out acknowledgement n. The caller holds mu.
func (c *confirms) remove(n int) {
	delete(c.waiting, n)
	if len(c.waiting) == 0 && c.none != nil {
		close(c.none)
		c.none = nil
	}
}

// wait waits until nothing waits any more, at most for d.
func (c *confirms) wait(d time.Duration) {
	c.mu.Lock()
	if len(c.waiting) == 0 {
		c.mu.Unlock()
		return
	}
	none := make(chan struct{})
	c.none = none
	c.mu.Unlock()
	pause(none, d)
}

func (c *confirms) close() {
	_ = c.sub.Unsubscribe()
	c.expire(0)
}
