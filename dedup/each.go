package dedup

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/internal/admit"
)

const (
	// eachTurn is how long the handlers of one DoEach should take together: about as
	// long as a store takes for a batch. Handlers that take longer gain nothing from fewer batches.
	eachTurn = time.Millisecond
	// eachMost bounds how many messages come again flagged Ambiguous after a crash.
	eachMost = 8
	// eachLimit is after how long the messages of one DoEach are no longer kept together.
	eachLimit = 10 * eachTurn
)

// handleEach is handle with a call of the handler for each, one after the other, in
// one slot.
func (d *runner) handleEach(p *pass) (again bool) {
	t := turn{d: d, xs: p.xs}
	defer t.end()
	for i, x := range p.xs {
		if !t.next(i) {
			return false
		}
		r := &p.runs[i]
		ms, running := r.running(p.xs[i : i+1])
		if len(ms) == 0 {
			continue
		}
		if t.timer == nil {
			switch err := d.admission.Start(&r.claims, d.closing, &p.call.ticket); {
			case errors.Is(err, admit.ErrTurnedBack):
				return true
			case err != nil:
				x.giveUp(err)
				continue
			}
			defer d.admission.Leave(&p.call.ticket) // before t.end, which may wait
			t.timer = time.AfterFunc(eachLimit, t.split)
		}
		t.calling = true
		err := d.run(r, p.xs[i:i+1], ms, running)
		t.calling = false
		if err != nil {
			x.giveUp(err)
		}
	}
	return false
}

// turn is the deliveries of one handleEach. When it takes long, the claims of all but
// the one whose handler runs are ended beside that: a crash would flag them for
// nothing, and a handler that hangs would keep them.
type turn struct {
	d       *runner
	xs      []*delivery
	timer   *time.Timer // from the first handler on
	calling bool        // a handler

	mu    sync.Mutex
	at    int           // the delivery whose turn it is
	apart bool          // no other has a turn any more
	done  chan struct{} // closed when split has ended; nil: there was none
}

// next goes on to xs[i], if that is not given back. Whose turn it is, split leaves alone.
func (t *turn) next(i int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.apart:
		return false
	case i > 0 && t.xs[i-1].res.Halt:
		t.apart = true
		giveUp(t.xs[i:], errNotStarted)
		return false
	}
	t.at = i
	return true
}

// split ends the claims of all but the delivery whose turn it is, which may end meanwhile.
func (t *turn) split() {
	t.mu.Lock()
	if t.apart {
		t.mu.Unlock()
		return
	}
	t.apart, t.done = true, make(chan struct{})
	defer close(t.done)
	t.mu.Unlock()
	giveUp(t.xs[t.at+1:], errNotStarted)
	others := slices.Delete(slices.Clone(t.xs), t.at, t.at+1)
	t.d.recorder.finish(others)
	t.d.flights.end(others...)
}

// end waits for a split under way, and comes to it if a handler has ended the goroutine.
// The last delivery does not wait for the others' dead letters.
func (t *turn) end() {
	if t.timer == nil {
		return
	}
	t.timer.Stop()
	if t.calling {
		t.split()
	}
	t.mu.Lock()
	t.apart = true
	done := t.done
	t.mu.Unlock()
	if done == nil {
		return
	}
	defer func() { <-done }() // also if a dead letter ends the goroutine
	if !t.calling {
		t.d.recorder.finish(t.xs[t.at : t.at+1])
	}
}
