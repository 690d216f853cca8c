package natstransport

import (
	"context"
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

// delivery is a message on its way from the server to its answer.
type delivery struct {
	message dedup.Message
	reply   string // where the answer goes
	binding *binding
	alive   atomic.Int64 // when the server last began to wait for the answer, as session.now
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

// ack returns when the acknowledgement is on its way; with ConfirmAcks, when the
// server has confirmed it. One that is lost is not tried again: the message comes
// again, and is answered from the record.
func (d *delivery) ack() {
	b := d.binding
	if !b.config.ConfirmAcks || b.current() != holds {
		b.answer(d, ackBody)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), b.config.patience)
	defer cancel()
	if _, err := b.conn.RequestWithContext(ctx, d.reply, ackBody); err != nil {
		b.log.Debug("an acknowledgement was not confirmed; the message comes again, as a duplicate", "position", d.message.Position.String(), "err", err)
	}
}

// settle answers the server. What is not answered comes again after AckWait.
func (s *session) settle(d *delivery, r dedup.Result) {
	defer s.hand.drop(d)
	switch {
	case r.Settled():
		if s.config.Reply {
			s.reply(d, r)
		}
		switch r.Outcome {
		case dedup.Parked, dedup.Conflict, dedup.Stale, dedup.Ambiguous:
			d.term(r)
		default:
			d.ack()
		}
	case r.Halt && s.haltAt(d, r):
	case r.Outcome == dedup.Uncertain: // the handler is done: no hurry
	case d.expired(): // the server's word is with another delivery now
	case errors.Is(r.Err, errDraining):
		d.nak(0) // to those who stay
	default:
		d.nak(retryDelay(r.RetryAfter))
	}
}

// retryDelay spreads what failed together, and never makes it come sooner.
func retryDelay(after time.Duration) time.Duration {
	after = max(after, minRetry)
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
