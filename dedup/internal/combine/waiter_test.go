package combine

import (
	"testing"
	"time"
)

// A leader waits for as many groups as took part in the last round, for one average
// Apply.
func TestWait(t *testing.T) {
	for name, c := range map[string]struct {
		took   time.Duration // by each Apply so far
		peers  int           // in each
		left   int           // in the queue when it began
		groups int           // now
		want   time.Duration
	}{
		"nothing is known":                    {0, 0, 0, 1, 0},
		"one is missing":                      {time.Millisecond, 2, 0, 1, time.Millisecond},
		"all are there":                       {time.Millisecond, 2, 0, 2, 0},
		"more than fit in a batch":            {time.Millisecond, 2, 1, 1, 0},
		"a store that is faster than a timer": {19 * time.Microsecond, 2, 0, 1, 0},
		"a slow store":                        {time.Second, 2, 0, 1, maxGather},
	} {
		var w waiter
		for range 3 {
			if c.peers > 0 {
				w.ended(c.peers, c.left, 0, c.took)
			}
		}
		if got := w.wait(c.groups); got != c.want {
			t.Errorf("%s: got a wait of %v, want %v", name, got, c.want)
		}
	}
}

// Waits in vain are tried less and less often, and one that was worth it is tried again
// at once.
func TestWaitInVainIsSkipped(t *testing.T) {
	var w waiter
	w.ended(16, 0, 0, time.Millisecond)
	for _, want := range []int{2, 4, 8, 16, 32, 64, 64, 64} {
		w.start()
		w.waited(14) // an eighth is missing
		got := 0
		for w.skips() {
			got++
		}
		if got != want {
			t.Errorf("got %d rounds without a wait, want %d", got, want)
		}
	}
	w.start()
	w.waited(15)
	if w.skips() {
		t.Error("the round after a wait that was worth it has none")
	}
	w.waited(14)
	if w.skip != 2 {
		t.Errorf("got %d rounds to skip after one wait in vain, want 2", w.skip)
	}
}

// The wait ends when the last of the peers is queued, and only once.
func TestWaitEndsWhenAllAreThere(t *testing.T) {
	var w waiter
	w.ended(3, 0, 0, time.Millisecond)
	w.queued(3) // nobody waits
	all := w.start()
	closed := func() bool {
		select {
		case <-all:
			return true
		default:
			return false
		}
	}
	if w.queued(2); closed() {
		t.Error("the wait ended with 2 groups of 3")
	}
	if w.queued(3); !closed() {
		t.Error("the wait goes on with 3 groups of 3")
	}
	w.queued(4)
}
