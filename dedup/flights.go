package dedup

import (
	"context"
	"sync"
	"time"
)

// flights holds the keys that are being worked on in this process, so that a
// second delivery of one waits here, without a claim or a handler slot.
type flights struct {
	mu      sync.Mutex
	running map[ID]*delivery
}

// start puts x in flight, unless another delivery of its key is: that one is
// returned, with a channel that closes when it has ended.
func (f *flights) start(x *delivery) (other *delivery, ended <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	other = f.running[x.id]
	if other == nil {
		f.running[x.id] = x
		x.flying = true
		return nil, nil
	}
	if other.ended == nil {
		other.ended = make(chan struct{})
	}
	return other, other.ended
}

// end takes xs out of flight, all at one time: who waits for one of a batch finds
// the others free too.
func (f *flights) end(xs ...*delivery) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range xs {
		if !x.flying {
			continue
		}
		x.flying = false
		delete(f.running, x.id)
		if x.ended != nil {
			close(x.ended)
		}
	}
}

// startBy is start that waits for its turn until the deadline. It returns
// ErrBusy then, ErrClosed once closing is closed, or the cause of ctx's end.
func (f *flights) startBy(ctx context.Context, closing <-chan struct{}, x *delivery, deadline time.Time) error {
	var timeout <-chan time.Time
	for {
		other, ended := f.start(x)
		if other == nil {
			return nil
		}
		if timeout == nil {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-ended:
		case <-timeout:
			return ErrBusy
		case <-closing:
			return ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
