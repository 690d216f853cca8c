package renew

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/reason"
	"github.com/oncequeue/oncequeue/internal/hangtest"
)

type forgetful struct{}

func (forgetful) Lost(error, bool) {}

// A process that was stopped goes on past the end of its leases before its fence has
// run: the end counts, not whether somebody has looked.
func TestLeaseEndsWithoutTheFence(t *testing.T) {
	hangtest.Watch(t)
	var r Renewer
	r.Init(func(ops []driver.Op) []driver.Reply { return make([]driver.Reply, len(ops)) }, time.Hour, time.Hour)
	defer r.Stop(t.Context())
	now := time.Now()
	l := &Lease{Holder: forgetful{}}
	r.Hold(now, l)
	for after, want := range map[time.Duration]bool{0: true, time.Hour - 1: true, time.Hour: false, 2 * time.Hour: false} {
		if got := r.Begin(now.Add(after), time.Time{}, l); got != want {
			t.Errorf("%v after the claim: got alive %v, want %v", after, got, want)
		}
	}
	if r.Drop(l); r.Begin(now, time.Time{}, l) {
		t.Error("a lease that was dropped is alive")
	}
}

// told notes when and why a claim was lost.
type told struct {
	mu   sync.Mutex
	why  error
	hung bool
	at   time.Time
}

func (h *told) Lost(why error, hung bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.why, h.hung, h.at = why, hung, time.Now()
}

// extends answers every extension with a status, and notes when it was asked.
type extends struct {
	mu     sync.Mutex
	status driver.Status
	err    error
	at     []time.Time
	ops    int
}

func (e *extends) apply(ops []driver.Op) []driver.Reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at, e.ops = append(e.at, time.Now()), e.ops+len(ops)
	replies := make([]driver.Reply, len(ops))
	for i := range replies {
		replies[i] = driver.Reply{Status: e.status, Err: e.err}
	}
	return replies
}

// Leases are renewed after each third of their length, those of about one time together.
func TestLeasesAreRenewedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, h := &extends{status: driver.StatusOK}, &told{}
		var r Renewer
		r.Init(e.apply, 30*time.Second, time.Hour)
		start := time.Now()
		for range 100 {
			r.Hold(time.Now(), &Lease{Holder: h})
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		r.Stop(t.Context())
		if n := len(e.at); n < 5 || n > 7 || e.ops < 500 {
			t.Errorf("got %d batches with %d extensions in a minute, want about 6 of 100", n, e.ops)
		}
		if first := e.at[0].Sub(start); first != 10*time.Second {
			t.Errorf("got the first extension after %v, want 10s", first)
		}
		if !errors.Is(h.why, reason.ErrClosed) {
			t.Errorf("after Stop: got %v, want that all leases are lost", h.why)
		}
	})
}

// A lease whose renewal is refused is lost at once. One whose store does not answer is
// lost at its end.
func TestLeaseIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		e     *extends
		after time.Duration
	}{
		"refused":    {&extends{status: driver.StatusLost}, 10 * time.Second},
		"unanswered": {&extends{err: errors.New("no route to host")}, 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &told{}
				var r Renewer
				r.Init(c.e.apply, 30*time.Second, time.Hour)
				start := time.Now()
				l := &Lease{Holder: h}
				r.Hold(start, l)
				time.Sleep(time.Minute)
				synctest.Wait()
				if !errors.Is(h.why, reason.ErrLeaseLost) || h.hung || h.at.Sub(start) != c.after {
					t.Errorf("got %v, hung %t, after %v; want the lease lost after %v", h.why, h.hung, h.at.Sub(start), c.after)
				}
				if r.Drop(l); !errors.Is(l.Fate(), reason.ErrLeaseLost) {
					t.Errorf("got fate %v, want that it was lost", l.Fate())
				}
				r.Stop(t.Context())
			})
		})
	}
}

// A handler that outlives its time loses its lease, which is not renewed after that.
func TestLeaseOfAHandlerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, h := &extends{status: driver.StatusOK}, &told{}
		var r Renewer
		r.Init(e.apply, 30*time.Second, time.Hour)
		start := time.Now()
		l := &Lease{Holder: h}
		r.Hold(start, l)
		if !r.Begin(start, start.Add(15*time.Second), l) {
			t.Fatal("a new lease is not alive")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if !errors.Is(h.why, reason.ErrLeaseLost) || !h.hung || h.at.Sub(start) != 40*time.Second {
			t.Errorf("got %v, hung %t, after %v; want it hung after 40s: one renewal, and its lease", h.why, h.hung, h.at.Sub(start))
		}
		r.Stop(t.Context())
	})
}
