package dedup

import (
	"context"
	"math/rand/v2"
	"time"
)

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

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
