package dedup

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/renew"
)

// recorder is the step that ends claims in the store, and sends dead letters before.
type recorder struct {
	o       *Options
	asker   *asker
	renewer *renew.Renewer
	teller  *teller
}

// finish ends the claims of xs that stand. Deliveries without a dead letter are recorded
// before a dead letter is waited for.
func (d *recorder) finish(xs []*delivery) {
	d.record(xs, func(x *delivery) bool { return x.park == nil })
	if d.bury(xs) {
		d.record(xs, func(x *delivery) bool { return x.park != nil })
	}
}

// record ends those claims of xs in the store that stand and which selects, again and again
// until it answers, says that it never will, or Shutdown's deadline has passed: a
// finished handler is not run again for want of a record.
func (d *recorder) record(xs []*delivery, which func(*delivery) bool) {
	ended := make([]*delivery, 0, len(xs))
	buffer := d.asker.buffers.Get().(*[]driver.Op)
	ops := (*buffer)[:0]
	for _, x := range xs {
		if x.claimed && !x.over && which(x) {
			ended = append(ended, x)
			ops = append(ops, d.settlement(x))
		}
	}
	all := ops
	judged := make([]*renew.Lease, 0, len(ended))
	for attempt := 1; len(ended) > 0; attempt++ {
		var unknown []int
		for at := 0; at < len(ops); {
			sent := d.asker.send(ops[at:])
			for i := range sent.Replies {
				reply, x := &sent.Replies[i], ended[at]
				if reply.Err != nil && d.asker.ctx.Err() == nil && !driver.IsPermanent(reply.Err) {
					unknown = append(unknown, at)
				} else {
					judged = append(judged, x.lease)
					x.over, x.known = true, sent.At()
					x.recorded(reply)
				}
				at++
			}
			sent.Done()
		}
		d.renewer.Drop(judged...) // what a late extend says does not count
		judged = judged[:0]
		ended, ops = pick(ended, unknown), pick(ops, unknown)
		if len(ended) > 0 {
			_ = sleep(d.asker.ctx, min(10*time.Millisecond<<min(attempt, 7), time.Second)) // the next send tells
		}
	}
	if d.asker.ctx.Err() == nil { // else somebody may be sending them still
		d.asker.giveBack(buffer, all)
	}
}

// recorded turns the store's answer to the end of a claim into the result.
func (x *delivery) recorded(reply *driver.Reply) {
	switch {
	case x.ending.kind == driver.OpRelease: // not settled; a release that is refused or unknown changes nothing
	case reply.Err != nil:
		x.end(Uncertain, x.after(fmt.Errorf("the handler has finished and its record is unknown: %w", reply.Err)))
		x.res.RetryAfter = pause(time.Second)
		x.res.Halt = driver.IsPermanent(reply.Err)
	case reply.Status != driver.StatusOK:
		x.end(Uncertain, x.after(fmt.Errorf("%w: another run took the key over before this one was recorded", ErrLeaseLost)))
		x.res.RetryAfter = pause(time.Second)
	default:
		x.res.settled = true
		if x.ending.kind == driver.OpComplete {
			x.res.Value, x.res.Omitted = reply.Record.Result, reply.Record.Omitted
		}
	}
}

// after returns err, with the reason for which the message was parked before: the stack of
// a panic is in it.
func (x *delivery) after(err error) error {
	if x.park == nil {
		return err
	}
	return errors.Join(err, x.park)
}

// settlement returns the operation that ends the claim of x.
func (d *recorder) settlement(x *delivery) driver.Op {
	op := driver.Op{
		Kind: x.ending.kind, ID: x.id, Token: x.lease.Token, TTL: d.o.TTL, Result: x.ending.result,
		Omitted: x.ending.omitted, Ambiguous: x.ending.ambiguous, Uncounted: x.ending.uncounted,
	}
	if op.Kind != driver.OpRelease {
		op.Fingerprint, op.Tag, op.Position = x.fingerprint, d.o.tag, x.m.Position
	}
	return op
}

// drop lets the claims of xs lapse that are held still, and reports the lost.
func (d *recorder) drop(xs []*delivery, held []*renew.Lease) {
	if slices.ContainsFunc(xs, func(x *delivery) bool { return x.claimed && !x.over }) {
		d.renewer.Drop(held...)
	} // else it was done when they were recorded
	for _, x := range xs {
		if x.claimed && errors.Is(x.lease.Fate(), ErrLeaseLost) {
			d.teller.observe(d.o.Hooks.LeaseLost, x)
		}
	}
}
