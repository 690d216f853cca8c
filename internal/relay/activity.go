package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// phase is how far a Relay is in its life.
type phase int32

const (
	opening phase = iota
	relaying
	draining
	stopped
)

func (p phase) String() string {
	return [...]string{"opening", "relaying", "draining", "stopped"}[p]
}

// activity follows what the relay's messages do: it tells a loop that hangs from
// one that has nothing to do, and from one that tries in vain.
type activity struct {
	base     time.Time
	phase    atomic.Int32
	inFlight atomic.Int64
	last     atomic.Int64 // when something last moved, since base

	mu       sync.Mutex
	storeErr error // of the last Apply that failed
	failedAt time.Time
}

func (a *activity) moved() { a.last.Store(int64(time.Since(a.base))) }

// since is for how long nothing has moved.
func (a *activity) since(now time.Time) time.Duration {
	return now.Sub(a.base.Add(time.Duration(a.last.Load())))
}

func (a *activity) enter(p phase) {
	a.phase.Store(int32(p))
	a.moved()
}

// drain follows relaying only: what is stopped stays so.
func (a *activity) drain() { a.phase.CompareAndSwap(int32(relaying), int32(draining)) }

func (a *activity) now() phase { return phase(a.phase.Load()) }

// hooks observe the Deduplicator. An Apply that succeeds is no sign of life: the
// leases of messages that hang are extended too.
func (a *activity) hooks() dedup.Hooks {
	return dedup.Hooks{
		Started: func(dedup.Event) {
			a.inFlight.Add(1)
			a.moved()
		},
		Decided: func(dedup.Event) {
			a.inFlight.Add(-1)
			a.moved()
		},
		Applied: func(_ int, _ time.Duration, err error) {
			if err == nil {
				return
			}
			a.moved() // it is tried again
			a.mu.Lock()
			defer a.mu.Unlock()
			a.storeErr, a.failedAt = err, time.Now()
		},
	}
}

// storeFailed returns why an operation of the store failed, if one did just now:
// what fails is tried again every second.
func (a *activity) storeFailed(now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.storeErr != nil && now.Sub(a.failedAt) < 5*time.Second {
		return a.storeErr
	}
	return nil
}
