package dedup

import (
	"context"
	"sync"
	"time"
)

// gate bounds how many claims are held whose handler has not started: after a
// crash each of those is flagged Ambiguous and has used up an attempt, although
// it never ran. It lets in as many as will start soon, by the time that handlers
// have taken: fast handlers fill the store's batches, slow ones make callers wait
// here, without a claim. The claims for one call of a batch handler count as one.
type gate struct {
	slots int // handlers at once

	mu      sync.Mutex
	ahead   int           // claims of the calls that are in and whose handler has not started
	took    time.Duration // moving average of a handler call; 0: not known yet
	waiting []waiter
}

// waiter is a call that is not in yet.
type waiter struct {
	turn   chan struct{} // nil: it is gone
	claims int
}

// soon is how far ahead of its handler a claim may be taken.
const soon = 100 * time.Millisecond

// limit returns how many claims may be ahead. The caller holds mu.
func (g *gate) limit() int {
	least := 2 * g.slots
	if g.took == 0 {
		return least
	}
	return max(least, int(min(soon/g.took*time.Duration(g.slots), MaxBatch)))
}

// enter waits to be let in with so many claims, unless ctx has ended or closing is
// closed. Each enter that returns nil is followed by one leave, with as many.
func (g *gate) enter(ctx context.Context, closing <-chan struct{}, claims int) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if isClosed(closing) {
		return ErrClosed
	}
	g.mu.Lock()
	if g.ahead < g.limit() {
		g.ahead += claims
		g.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	g.waiting = append(g.waiting, waiter{turn, claims})
	g.mu.Unlock()
	var err error
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-closing:
		err = ErrClosed
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-turn: // let in meanwhile: pass it on
		g.ahead -= claims
		g.wake()
	default:
		for i := range g.waiting {
			if g.waiting[i].turn == turn {
				g.waiting[i].turn = nil // wake skips it
				break
			}
		}
	}
	return err
}

// leave is called when the handler starts, or when it is known that none will.
func (g *gate) leave(claims int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ahead -= claims
	g.wake()
}

// within returns how many handler calls are done in d, by the time that they have
// taken: 0 if that is not known yet.
func (g *gate) within(d time.Duration) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.took == 0 {
		return 0
	}
	return int(d / g.took)
}

// ran notes how long a handler call took.
func (g *gate) ran(took time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.took == 0 {
		g.took = took
	}
	g.took = max((7*g.took+took)/8, 1)
	g.wake()
}

func (g *gate) wake() {
	for len(g.waiting) > 0 && (g.waiting[0].turn == nil || g.ahead < g.limit()) {
		if w := g.waiting[0]; w.turn != nil {
			g.ahead += w.claims
			close(w.turn)
		}
		g.waiting = g.waiting[1:]
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
