package dedup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// buriers is how many dead letters of one batch are sent at once.
const buriers = 16

// finish ends the claims of xs that stand. What needs no dead letter is recorded before
// one is waited for.
func (d *Deduplicator) finish(xs []*delivery) {
	d.record(xs, func(x *delivery) bool { return x.park == nil })
	if d.bury(xs) {
		d.record(xs, func(x *delivery) bool { return x.park != nil })
	}
}

// bury sends the dead letters, and reports whether there were any. Each claim is
// kept until its dead letter is confirmed; one that is not confirmed comes again.
func (d *Deduplicator) bury(xs []*delivery) bool {
	var dead []*delivery
	for _, x := range xs {
		if x.park != nil && !x.over {
			dead = append(dead, x)
		}
	}
	switch len(dead) {
	case 0:
		return false
	case 1:
		d.buryOne(dead[0])
	default:
		d.buryAll(dead)
	}
	return true
}

func (d *Deduplicator) buryAll(dead []*delivery) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(dead), buriers) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(dead)); i = next.Add(1) - 1 {
				d.buryOne(dead[i])
			}
		})
	}
	wg.Wait()
}

func (d *Deduplicator) buryOne(x *delivery) {
	x.over = !x.claimed // else it is when that is recorded
	why, err := d.deadLetter(&x.of.claims, x)
	if err != nil {
		err = fmt.Errorf("dead letter: %w", err)
		x.res.Halt = IsPermanent(err) // nothing that waits mends it
		if x.res.Err != nil {
			err = errors.Join(x.res.Err, err)
		}
		if x.parkedAs == Parked {
			x.res.Outcome = Failed
		}
		x.res.Err = err
		x.res.RetryAfter = pause(time.Second)
		return
	}
	x.end(x.parkedAs, x.park)
	x.res.RetryAfter = 0
	if !x.claimed {
		x.res.settled = true
		return
	}
	x.ending = ending{kind: OpPark, result: why, ambiguous: x.ending.ambiguous}
}

// deadLetter sends one, if the claim is still ours: else another run may be
// processing the message. It returns what the record is to say of why.
func (d *Deduplicator) deadLetter(ctx context.Context, x *delivery) (why []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError(r)
		}
	}()
	const most = 1024
	s := x.park.Error()
	why = []byte(s[:min(len(s), most)])
	if x.claimed && !d.renewer.begin(time.Now(), time.Time{}, x.lease) {
		return nil, ErrLeaseLost
	}
	return why, finite(d.o.DeadLetter(ctx, x.m, x.park))
}

// record ends those claims of xs in the store that stand and which selects, again and again
// until it answers, says that it never will, or Shutdown's deadline has passed: a
// finished handler is not run again for want of a record.
func (d *Deduplicator) record(xs []*delivery, which func(*delivery) bool) {
	ended := make([]*delivery, 0, len(xs))
	buffer := d.opBuffers.Get().(*[]Op)
	ops := (*buffer)[:0]
	for _, x := range xs {
		if x.claimed && !x.over && which(x) {
			ended = append(ended, x)
			ops = append(ops, d.settlement(x))
		}
	}
	all := ops
	judged := make([]*lease, 0, len(ended))
	for attempt := 1; len(ended) > 0; attempt++ {
		var unknown []int
		for at := 0; at < len(ops); {
			sent := d.send(ops[at:])
			for i := range sent.replies {
				reply, x := &sent.replies[i], ended[at]
				if reply.Err != nil && d.ctx.Err() == nil && !IsPermanent(reply.Err) {
					unknown = append(unknown, at)
				} else {
					judged = append(judged, x.lease)
					x.over, x.known = true, sent.of.at
					x.recorded(reply)
				}
				at++
			}
			sent.done()
		}
		d.renewer.drop(judged...) // what a late extend says does not count
		judged = judged[:0]
		ended, ops = pick(ended, unknown), pick(ops, unknown)
		if len(ended) > 0 {
			_ = sleep(d.ctx, min(10*time.Millisecond<<min(attempt, 7), time.Second)) // the next send tells
		}
	}
	if d.ctx.Err() == nil { // else somebody may be sending them still
		d.giveBack(buffer, all)
	}
}

// send carries out as many of ops, from the front, as fit in a batch.
func (d *Deduplicator) send(ops []Op) answers {
	n := 1
	for bytes := ops[0].size(); n < len(ops); n++ {
		if bytes += ops[n].size(); bytes > maxBatchBytes {
			break
		}
	}
	sent, err := d.combiner.do(d.ctx, ops[:n])
	if err != nil {
		return answers{failed(n, err), &applied{}}
	}
	return sent
}

// recorded turns the store's answer to the end of a claim into the result.
func (x *delivery) recorded(reply *Reply) {
	switch {
	case x.ending.kind == OpRelease: // not settled; a release that is refused or unknown changes nothing
	case reply.Err != nil:
		x.end(Uncertain, fmt.Errorf("the handler has finished and its record is unknown: %w", reply.Err))
		x.res.RetryAfter = pause(time.Second)
		x.res.Halt = IsPermanent(reply.Err)
	case reply.Status != StatusOK:
		x.end(Uncertain, fmt.Errorf("%w: another run took the key over before this one was recorded", ErrLeaseLost))
		x.res.RetryAfter = pause(time.Second)
	default:
		x.res.settled = true
		if x.ending.kind == OpComplete {
			x.res.Value, x.res.Omitted = reply.Record.Result, reply.Record.Omitted
		}
	}
}

func pick[T any](all []T, at []int) []T {
	out := make([]T, len(at))
	for i, j := range at {
		out[i] = all[j]
	}
	return out
}

// pause returns a duration around d, so that waiters do not come in step.
func pause(d time.Duration) time.Duration { return d/2 + rand.N(d+1) }

// sleep waits for d, or returns the cause of ctx's end.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
