package relay

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

const (
	// probeTimeout bounds how long a target or store may take to answer a probe.
	probeTimeout = 3 * time.Second
	// probeInterval bounds how often they are asked, however many ask the relay.
	probeInterval = time.Second
	// slow is for how long messages may be under way without any of them moving
	// before the relay is not ready. A publish that times out takes 20s.
	slow = 30 * time.Second
	// stuck is the same for /livez, whose word restarts the relay. A rebalance may
	// take a minute.
	stuck = 2 * time.Minute
)

// sourceStatus is how a source fares; see kafkatransport.Status.
type sourceStatus struct {
	Assigned int       `json:"assigned"`
	Halted   int       `json:"halted"`
	Failing  []string  `json:"failing,omitempty"`
	Cause    string    `json:"cause,omitempty"` // the last error of the first that has one
	Since    time.Time `json:"since,omitzero"`
	Progress time.Time `json:"progress,omitzero"`
}

// check is the answer to one question of readiness.
type check struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why not
}

func answer(err error) check {
	if err == nil {
		return check{OK: true}
	}
	return check{Reason: line(err.Error())}
}

// report says whether the relay can do its work, and if not, what is in the way.
type report struct {
	Ready  bool             `json:"ready"`
	Checks map[string]check `json:"checks"`
}

// prober asks the targets and the store, at most once in probeInterval.
type prober struct {
	mu    sync.Mutex
	at    time.Time
	found map[string]check
}

// ready reports on the relay. The source is not asked: what its own requests meet
// is known. The targets and the store are, because they hear from an idle relay
// of nothing else.
func (r *Relay) ready() report {
	out := report{Checks: make(map[string]check)}
	if p := r.activity.now(); p != relaying {
		out.Checks["relay"] = check{Reason: p.String()}
		return out
	}
	out.Checks["relay"] = answer(r.flowing(time.Now()))
	out.Checks["source"] = answer(r.source.Status().err(time.Now()))
	for name, c := range r.probed() {
		out.Checks[name] = c
	}
	out.Ready = true
	for _, c := range out.Checks {
		out.Ready = out.Ready && c.OK
	}
	return out
}

// flowing returns an error if messages are under way and none has moved for long.
func (r *Relay) flowing(now time.Time) error {
	if n, since := r.activity.inFlight.Load(), r.activity.since(now); n > 0 && since > slow {
		return fmt.Errorf("%d messages are under way, and none has moved for %v", n, since.Round(time.Second))
	}
	return nil
}

// err returns why the source delivers nothing, or less than it should.
func (s sourceStatus) err(now time.Time) error {
	switch {
	case s.Halted > 0:
		return fmt.Errorf("%d of %d partitions halted: an operator must look, the log says why", s.Halted, s.Assigned)
	case len(s.Failing) > 0:
		names, more := s.Failing, ""
		if len(names) > 5 {
			names, more = names[:5], fmt.Sprintf(" and %d more", len(names)-5)
		}
		since, which := now.Sub(s.Since).Round(time.Second), strings.Join(names, ", ")+more
		if s.Cause != "" {
			return fmt.Errorf("failing for %v: %s: %s", since, which, s.Cause)
		}
		return fmt.Errorf("no answer for %v: %s", since, which)
	case s.Assigned == 0:
		return fmt.Errorf("nothing is assigned to this member: the group is rebalancing, or has more members than partitions")
	}
	return nil
}

// probed returns what the targets and the store answer.
func (r *Relay) probed() map[string]check {
	p := &r.prober
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.found != nil && time.Since(p.at) < probeInterval {
		return p.found
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	probes := map[string]func(context.Context) error{"target": r.targetAnswers, "store": r.storeAnswers}
	if r.letters != nil {
		probes["dead_letter"] = r.letters.Check
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	found := make(map[string]check, len(probes))
	for name, probe := range probes {
		asking.Go(func() {
			c := answer(probe(ctx))
			mu.Lock()
			defer mu.Unlock()
			found[name] = c
		})
	}
	asking.Wait()
	p.found, p.at = found, time.Now()
	return found
}

func (r *Relay) targetAnswers(ctx context.Context) error {
	if err := r.output.failing(time.Now()); err != nil {
		return err // it may answer, and take no message
	}
	return r.sink.Check(ctx)
}

// storeAnswers extends a lease that does not exist, which changes nothing.
func (r *Relay) storeAnswers(ctx context.Context) error {
	if err := r.activity.storeFailed(time.Now()); err != nil {
		return err
	}
	replies, err := r.records.Apply(ctx, []driver.Op{{Kind: driver.OpExtend, Token: 1, Lease: time.Second, TTL: time.Second}})
	switch {
	case err != nil:
		return err
	case len(replies) != 1:
		return fmt.Errorf("%d replies to one operation", len(replies))
	}
	return replies[0].Err
}

// alive returns an error if the relay is stuck, so that only a restart helps. A
// broker or a store that is away is no reason.
func (r *Relay) alive() error {
	now := time.Now()
	switch p := r.activity.now(); p {
	case opening:
		return nil
	case stopped:
		return fmt.Errorf("%v", p)
	}
	idle := r.activity.since(now)
	n := r.activity.inFlight.Load()
	if n == 0 {
		if progress := r.source.Status().Progress; !progress.IsZero() {
			idle = min(idle, now.Sub(progress))
		}
	}
	if idle > stuck {
		return fmt.Errorf("nothing has moved for %v, with %d messages under way", idle.Round(time.Second), n)
	}
	return nil
}
