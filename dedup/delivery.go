package dedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/internal/renew"
)

// delivery is one message on its way through the steps of process.go. Its parts are
// named after the step from which on they hold.
type delivery struct {
	call *call
	res  *Result
	identity
	waiting
	claiming
	conclusion
}

// pass takes deliveries, each in flight here or decided without a claim, from the
// claim to the record. The handler is called once for all that are to run, or in a
// call with a Handler once for each.
type pass struct {
	call *call
	ctx  context.Context // the caller's
	xs   []*delivery
	runs []run // used up by the first try

	always bool                            // the handler is called although none of xs is to run
	spare  func(xs []*delivery, why error) // of a pass that is always: gives parks back, if the handler has not returned
}

// begin makes the runs, and appends the leases that are held under them. free says that
// some are to run without a claim, the loss of which would end their run.
func (p *pass) begin(onLost func(x *delivery, hung bool), leases []*renew.Lease) (held []*renew.Lease, free bool) {
	n := p.call.ticket.Claims
	if p.runs == nil {
		p.runs = make([]run, n)
	}
	runs := p.runs
	for i := range runs {
		runs[i].init(p.call, p.ctx, onLost)
	}
	held = leases
	for i, x := range p.xs {
		x.of = &runs[min(i, n-1)]
		if x.claimed {
			held = append(held, x.lease)
		} else if x.run || x.park != nil {
			free = true
		}
	}
	return held, free
}

// parks appends the leases under which messages are to be parked.
func (p *pass) parks(leases []*renew.Lease) []*renew.Lease {
	for _, x := range p.xs {
		if !x.run && x.park != nil && x.claimed {
			leases = append(leases, x.lease)
		}
	}
	return leases
}

// why returns why the handler was not called.
func (p *pass) why(closing <-chan struct{}) error {
	cause := p.runs[0].claims.cause(time.Time{})
	switch {
	case isClosed(closing):
		return ErrClosed
	case cause != nil:
		return cause
	}
	return ErrLeaseLost
}

func (p *pass) end() {
	for i := range p.runs {
		p.runs[i].end()
	}
}

// endAt ends the runs when ctx ends, at the deadline of Shutdown.
func endAt(ctx context.Context, runs []run) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		for i := range runs {
			runs[i].lose(ErrClosed)
		}
	})
}

// identity names the message. It is set once.
type identity struct {
	m           *Message
	id          ID // zero: without a key
	fingerprint Fingerprint
}

// waiting relates deliveries of one key in this process. It belongs to flights.
type waiting struct {
	leader  *delivery   // earlier in the call, with the same key and payload
	flying  bool        // in flights
	granted atomic.Bool // the store gave it the claim: others can conflict with it
	watched atomic.Bool // another waits for its key

	// Under the mutex of flights.
	ended   chan struct{} // closed when the deliveries that wait for its key shall look again; nil: none waits
	awaits  *delivery     // of the same key, in flight; nil: not known, or it has ended
	awaited []*delivery   // by these
	place   int           // in awaited of the one that it awaits
	answer  *answer       // from the one that it awaited, if the store need not be asked
}

// claiming is what the store answered to the claim, and the run under it.
type claiming struct {
	claimed   bool // the claim is ours
	over      bool // nothing is left to do
	run       bool // the handler is to run
	of        *run
	lease     *renew.Lease // of the claim
	own       renew.Lease  // the first one
	firstSeen time.Time    // as the claim found it
	took      time.Duration
	known     time.Time // of res: what the store said then, or later
}

// conclusion is how the claim ends, once known.
type conclusion struct {
	parkedAs Outcome // what a confirmed dead letter makes of it
	park     error   // not nil: by a dead letter, for this reason
	ending   ending
	buried   bool  // the handler has sent the dead letter
	back     error // not nil: the handler of the round gave it back
	clean    bool  // it said that nothing was done
}

// ending is the operation that ends a claim.
type ending struct {
	kind                          driver.OpKind
	omitted, ambiguous, uncounted bool
	result                        []byte
}

// answer is what one delivery of a key says to others.
type answer struct {
	result    Result
	firstSeen time.Time
}

// say returns the answer of x, which is decided, to others of its key.
func (x *delivery) say() answer {
	a := answer{*x.res, x.firstSeen}
	switch {
	case a.result.Outcome == Processed:
		a.result.Outcome = Duplicate
	case a.result.Outcome == Parked && a.result.settled:
		a.result.Outcome = AlreadyParked
	}
	return a
}

// hear decides x by another's answer.
func (x *delivery) hear(a answer) {
	*x.res, x.firstSeen = a.result, a.firstSeen
	x.res.Value = bytes.Clone(x.res.Value) // others have it too
}

// undecided reports whether x is to be claimed, run or parked.
func (x *delivery) undecided() bool { return x.res.Outcome == 0 || x.run || x.park != nil }

// again has x try once more: its claim was turned back, and is given back.
func (x *delivery) again() {
	if x.claimed {
		x.claimed, x.over, x.run, x.lease = false, false, false, new(renew.Lease)
		x.m.Claim = Claim{ID: x.id, Key: x.m.Claim.Key}
	}
}

func halted(slab []delivery) bool {
	for i := range slab {
		if slab[i].res.Halt {
			return true
		}
	}
	return false
}

// end decides x.
func (x *delivery) end(outcome Outcome, err error) {
	x.res.Outcome, x.res.Err = outcome, err
}

var errNotStarted = errors.New("not started: what came before it took long, or halted")

// giveUp decides x as not processed, for no fault of its own. Its claim is
// released, uncounted.
func (x *delivery) giveUp(err error) {
	x.run, x.park = false, nil
	x.end(Unavailable, err)
	if errors.Is(err, ErrBusy) || errors.Is(err, ErrLeaseLost) {
		x.res.Outcome = Busy
	}
	x.res.Halt = false
	if x.res.RetryAfter = pause(100 * time.Millisecond); errors.Is(err, errNotStarted) {
		x.res.RetryAfter = 0
	}
}

// conflict decides x, whose key is recorded or held with another payload.
func (x *delivery) conflict(p Policy, first Position) {
	x.res.First = first
	x.end(Conflict, fmt.Errorf("%w, at %v", ErrConflict, first))
	x.decide(p, x.res.Err)
}

// decide applies a policy to x, whose Outcome names the reason.
func (x *delivery) decide(p Policy, why error) {
	switch p {
	case PolicyProcess:
		x.run = true
	case PolicyPark:
		x.park, x.parkedAs = why, x.res.Outcome
	case PolicySkip:
		x.res.settled = true
	default:
		x.res.Halt = true
	}
}
