// Package wait has the waits that all transports share: pauses, growing pauses
// between tries, and signals that nobody has to be ready for.
package wait

import (
	"context"
	"math/rand/v2"
	"time"
)

// For waits for d. It returns false if quit was closed first.
func For(quit <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-quit:
		return false
	case <-t.C:
		return true
	}
}

// Notify puts an element into c, unless c is full.
func Notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// Backoff spaces tries: each pause is about twice the one before, from 50 ms to 2 s,
// with jitter. The zero value is ready.
type Backoff struct{ pause time.Duration }

// Reset makes the next pause the first again.
func (b *Backoff) Reset() { b.pause = 0 }

// Wait waits for the next pause. It returns false if ctx ended first.
func (b *Backoff) Wait(ctx context.Context) bool {
	b.pause = min(max(2*b.pause, firstPause), lastPause)
	return For(ctx.Done(), b.pause/2+rand.N(b.pause/2))
}
