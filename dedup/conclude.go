package dedup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// bury sends the dead letters. Each claim is kept until its dead letter is
// confirmed; one that is not confirmed comes again.
func (d *Deduplicator) bury(ctx context.Context, xs []*delivery) {
	for _, x := range xs {
		if x.park == nil {
			continue
		}
		if err := d.deadLetter(ctx, x); err != nil {
			err = fmt.Errorf("dead letter: %w", err)
			if x.res.Err != nil {
				err = errors.Join(x.res.Err, err)
			}
			if x.parkedAs == Parked {
				x.res.Outcome = Failed
			}
			x.res.Err = err
			x.res.RetryAfter = d.o.Backoff(max(x.m.Claim.Attempt, 1))
			continue
		}
		x.end(x.parkedAs, x.park)
		x.res.RetryAfter = 0
		if !x.claimed {
			x.res.settled = true
			continue
		}
		x.op = d.settling(x, OpPark)
		x.op.Result = reason(x.park)
	}
}

func (d *Deduplicator) deadLetter(ctx context.Context, x *delivery) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError(r)
		}
	}()
	return d.o.DeadLetter(ctx, x.m, x.park)
}

// reason is what a parked record says of why.
func reason(why error) []byte {
	const most = 1024
	s := why.Error()
	return []byte(s[:min(len(s), most)])
}

// record ends the claims of xs in the store, again and again until it answers
// or Shutdown's deadline has passed: a finished handler is not run again for
// want of a record.
func (d *Deduplicator) record(xs []*delivery) {
	ended := make([]*delivery, 0, len(xs))
	ops := make([]Op, 0, len(xs))
	for _, x := range xs {
		if x.claimed {
			x.lease.closing.Store(true)
			ended = append(ended, x)
			ops = append(ops, x.op)
		}
	}
	for attempt := 1; len(ended) > 0; attempt++ {
		replies, err := d.send(ops)
		var unknown []int
		for i, x := range ended {
			switch {
			case err != nil:
				x.recorded(Reply{Err: err})
			case replies[i].Err != nil && d.ctx.Err() == nil:
				unknown = append(unknown, i)
			default:
				x.recorded(replies[i])
			}
		}
		ended, ops = pick(ended, unknown), pick(ops, unknown)
		if len(ended) > 0 {
			_ = sleep(d.ctx, min(10*time.Millisecond<<min(attempt, 7), time.Second)) // the next send tells
		}
	}
}

// send carries out ops in groups no larger than a batch may be.
func (d *Deduplicator) send(ops []Op) ([]Reply, error) {
	var all []Reply
	for len(ops) > 0 {
		n := 1
		for bytes := len(ops[0].Result); n < len(ops); n++ {
			if bytes += len(ops[n].Result); bytes > maxBatchBytes {
				break
			}
		}
		replies, err := d.combiner.do(d.ctx, ops[:n])
		if err != nil {
			return nil, err
		}
		if n == len(ops) && all == nil {
			return replies, nil
		}
		all, ops = append(all, replies...), ops[n:]
	}
	return all, nil
}

// recorded turns the store's answer to the end of a claim into the result.
func (x *delivery) recorded(reply Reply) {
	settling := x.op.Kind != OpRelease
	switch {
	case !settling: // failed already; a release that is refused or unknown changes nothing
	case reply.Err != nil:
		x.end(Uncertain, fmt.Errorf("the handler has finished and its record is unknown: %w", reply.Err))
		x.res.RetryAfter = pause(time.Second)
	case reply.Status != StatusOK:
		x.end(Uncertain, fmt.Errorf("%w: another run took the key over before this one was recorded", ErrLeaseLost))
		x.res.RetryAfter = pause(time.Second)
	default:
		x.res.settled = true
		if x.op.Kind == OpComplete {
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
