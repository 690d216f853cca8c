package dedup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/mark"
)

// buriers is how many dead letters of one batch are sent at once.
const buriers = 16

// bury sends the dead letters, and reports whether there were any. Each claim is
// kept until its dead letter is confirmed; one that is not confirmed comes again.
func (d *recorder) bury(xs []*delivery) bool {
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

func (d *recorder) buryAll(dead []*delivery) {
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

func (d *recorder) buryOne(x *delivery) {
	x.over = !x.claimed // else it is when that is recorded
	why, err := d.deadLetter(&x.of.claims, x)
	if err != nil {
		x.unburied(err)
		return
	}
	x.end(x.parkedAs, x.park)
	x.res.RetryAfter = 0
	if !x.claimed {
		x.res.settled = true
		return
	}
	x.ending = ending{kind: driver.OpPark, result: why, ambiguous: x.ending.ambiguous}
}

// unburied decides x, whose dead letter is not confirmed.
func (x *delivery) unburied(err error) {
	err = fmt.Errorf("dead letter: %w", err)
	x.res.Halt = driver.IsPermanent(err) // nothing that waits mends it
	if x.res.Err != nil {
		err = errors.Join(x.res.Err, err)
	}
	if x.parkedAs == Parked {
		x.res.Outcome = Failed
	}
	x.res.Err = err
	x.res.RetryAfter = pause(time.Second)
}

// deadLetter sends one, if the claim is still ours: else another run may be
// processing the message. It returns what the record is to say of why.
func (d *recorder) deadLetter(ctx context.Context, x *delivery) (why []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = panicError(r)
		}
	}()
	const most = 1024
	s := x.park.Error()
	why = []byte(s[:min(len(s), most)])
	if x.buried {
		return why, nil
	}
	if x.claimed && !d.renewer.Begin(time.Now(), time.Time{}, x.lease) {
		return nil, ErrLeaseLost
	}
	return why, mark.Finite(d.o.DeadLetter(ctx, x.m, x.park))
}
