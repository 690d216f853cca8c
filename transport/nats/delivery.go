package natstransport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// minRetry keeps a Deduplicator that asks for no delay from being asked in a
// tight loop.
const minRetry = 20 * time.Millisecond

// maxRetry is the longest delay that the server is asked for, about a hundred years.
// The server counts in nanoseconds since 1970, which end in 2262.
const maxRetry = 36500 * 24 * time.Hour

// delivery is a message on its way from the server to its answer.
type delivery struct {
	message dedup.Message
	reply   string // where the answer goes
	size    int    // as the server counts it
	key     string // of its order; empty: none
	binding *binding
	alive   atomic.Int64 // when the server last began to wait for the answer, as session.now

	worker   atomic.Pointer[worker] // who has taken it from the queue
	answered atomic.Bool

	held bool // under the hand's mu, with what follows
	prev *delivery
	next *delivery
}

// sequence is the message's number in the stream.
func (d *delivery) sequence() int64 { return d.message.Position.Offset }

// given says that the delivery is given up: whose turn it was has lost the right.
func (d *delivery) given() bool {
	w := d.worker.Load()
	return w != nil && w.lost()
}

// expired says that the server may have delivered the message to another by now.
func (d *delivery) expired() bool { return d.overdue() || d.binding.orphaned() }

// overdue says that AckWait has passed since the server last heard of it.
func (d *delivery) overdue() bool {
	return d.binding.now()-time.Duration(d.alive.Load()) >= d.binding.ackWait
}

// Answers, as the server reads them.
var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	progressBody = []byte("+WPI")
)

func (d *delivery) nak(delay time.Duration) {
	body := nakBody
	if delay > 0 {
		body = fmt.Appendf(nil, `-NAK {"delay": %d}`, delay.Nanoseconds())
	}
	d.binding.answer(d, body)
}

// term ends the deliveries of a message whose dead letter is confirmed and
// recorded. The server tells the reason in an advisory.
func (d *delivery) term(r dedup.Result) {
	reason := r.Outcome.String()
	if r.Err != nil {
		reason += ": " + r.Err.Error()
	}
	d.binding.answer(d, []byte("+TERM "+line(reason)))
}

// ack sends the acknowledgement. It returns true if that is to be confirmed: then
// the delivery stays in hand until it is. One that is lost is not tried again: the
// message comes again, and is answered from the record.
func (d *delivery) ack() (confirming bool) {
	d.answered.Store(true)
	if d.binding.confirm(d) {
		return true
	}
	d.binding.answer(d, ackBody)
	return false
}

// settle answers the server. What is not answered comes again after AckWait.
func (s *session) settle(d *delivery, r dedup.Result) {
	switch {
	case r.Settled():
		if s.config.Reply {
			s.reply(d, r)
		}
		switch r.Outcome {
		case dedup.Parked, dedup.AlreadyParked, dedup.Conflict, dedup.Stale, dedup.Ambiguous:
			d.term(r)
		default:
			if d.ack() {
				return
			}
		}
	case r.Halt && s.haltAt(d, r):
	case r.Outcome == dedup.Uncertain: // the handler is done: no hurry
	case d.expired(): // the server's word is with another delivery now
		s.consumer.counts.stale.Add(1)
	case errors.Is(r.Err, errDraining):
		d.nak(0) // to those who stay
	case s.order != nil: // who comes next waits for AckWait, and then takes what is behind it
		d.nak(min(retryDelay(r.RetryAfter), d.binding.ackWait))
	default:
		d.nak(retryDelay(r.RetryAfter))
	}
	s.drop(d)
}

// drop takes the delivery out of hand.
func (s *session) drop(d *delivery) { s.hand.drop(d, s.now()) }

// retryDelay spreads what failed together, and never makes it come sooner.
func retryDelay(after time.Duration) time.Duration {
	after = min(max(after, minRetry), maxRetry)
	return after + rand.N(after/10+1)
}

// line makes s one line of bounded length.
func line(s string) string {
	const most = 256
	s = strings.ToValidUTF8(s[:min(len(s), most)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
