package natstransport

import (
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// errRestarted: deliveries are counted from one by each incarnation.
var errRestarted = errors.New("the consumer counts its deliveries anew")

// errLost: somebody shares the consumer, or a connection broke, of this member or
// between servers, and the deliveries that were on their way are lost.
var errLost = errors.New("deliveries did not arrive")

// flow is what arrives at one inbox.
type flow struct {
	inbox   string
	sub     *nats.Subscription
	drained chan struct{} // closed when the subscription has handed over all it received

	mu   sync.Mutex
	last uint64 // number of the last delivery, as the consumer counts them
	told uint64 // what the server said that is, when it was asked last
	lost bool   // some before the next one did not arrive
	left bool   // for another inbox
}

// subscribe makes a new inbox, which takes up the count at the delivery of that number.
func (b *binding) subscribe(last uint64, lost bool) (err error) {
	f := &flow{inbox: b.conn.NewInbox(), drained: make(chan struct{}), last: last, told: last, lost: lost}
	if f.sub, err = b.conn.Subscribe(f.inbox+".*", func(m *nats.Msg) { b.receive(f, m) }); err != nil {
		return err
	}
	_ = f.sub.SetPendingLimits(-1, -1) // Prefetch is the limit; what the client dropped would come only after AckWait
	f.sub.SetClosedHandler(func(string) { close(f.drained) })
	b.flow = f
	b.puller.answerTo(f.inbox)
	return nil
}

// resubscribe leaves an inbox that requests were made for. The server would go on to
// serve them over a new connection, whether or not what it sent over the old one arrived.
func (b *binding) resubscribe() error {
	if !b.puller.asked() {
		return nil
	}
	f := b.flow
	last, lost := f.leave()
	_ = f.sub.Unsubscribe() // it fails if the connection is closed, as what follows does
	return b.subscribe(last, lost)
}

// isStatus tells the server's words on a request, which come to the inbox itself,
// from messages, which keep the subject that they were published to.
func (f *flow) isStatus(m *nats.Msg) (request int, ok bool) {
	number, ok := strings.CutPrefix(m.Subject, f.inbox+".")
	if !ok {
		return 0, false
	}
	request, err := strconv.Atoi(number)
	return request, err == nil
}

// take counts delivery n. With whole set, it takes none after one that was lost. The
// caller holds mu.
func (f *flow) take(n uint64, whole bool) error {
	last := f.last
	switch {
	case !whole:
		f.last = n
		if n <= last {
			return errRestarted
		}
	case f.left || f.lost || n != last+1 && n != f.told+1:
		f.lost = true
		return errLost
	default:
		f.last = n
	}
	return nil
}

// leave takes nothing more.
func (f *flow) leave() (last uint64, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lost, f.left = f.lost, true
	return f.last, lost
}

// complete says whether all deliveries arrived, of which the server made n. A server
// that crashed may have forgotten some, and makes them again.
func (f *flow) complete(n uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = n
	return !f.lost && n <= f.last
}

// count goes on from delivery n.
func (f *flow) count(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.told, f.lost = n, n, false
}
