package driver_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// TestSearch visits every state that two and three workers can bring one key
// into, over the real Step. A worker may crash, be paused for any time, lose any
// reply, fail before and after the effect, or be told to stop at any moment.
//
// An operator may unpark the key at any moment. With two workers, claims may carry
// notes, and the record says whose claim it has.
//
// The search is complete, not bounded: times count from now, and tokens by
// their order, so the states are finitely many although runs are not. The one
// bound is that the record does not expire.
func TestSearch(t *testing.T) {
	for _, workers := range []int{2, 3} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			s := newSearch(driver.Step, workers)
			s.notes = workers == 2
			if bad := s.run(); bad != nil {
				t.Fatal(bad)
			}
			t.Logf("%d states, %d steps", len(s.from), s.steps)
			for i, name := range phaseNames {
				if !s.seen[i] {
					t.Errorf("no worker was ever %s: the search does not go where it should", name)
				}
			}
		})
	}
}

// TestSearchFindsFaults takes rules out of copies of Step. A search that does not
// find what follows proves nothing.
func TestSearchFindsFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		want string // the violation
		// before changes the arguments of Step, after its results: each may be nil.
		before func(r *driver.Record, op *driver.Op, next *dedup.Token)
		after  func(before driver.Record, op driver.Op, after *driver.Record)
	}{
		{"ambiguous is not sticky: release clears it", secondEffect, nil, func(_ driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpRelease {
				after.Ambiguous = op.Ambiguous
			}
		}},
		{"ambiguous is not sticky: a grant after a release clears it", secondEffect, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpClaim && r.State == driver.StateReleased {
				r.Ambiguous = false
			}
		}, nil},
		{"a release that is ambiguous does not say so", secondEffect, func(_ *driver.Record, op *driver.Op, _ *dedup.Token) {
			op.Ambiguous = false
		}, nil},
		{"a take-over is not ambiguous", secondEffect, nil, func(before driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpClaim && before.State == driver.StateClaimed {
				after.Ambiguous = before.Ambiguous
			}
		}},
		{"a living lease is taken over", secondHolder, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpClaim && r.State == driver.StateClaimed && r.Nonce != op.Nonce {
				r.LeaseEnd = time.Time{}
			}
		}, nil},
		{"a repeated claim is granted though its lease ended", secondHolder, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpClaim && r.State == driver.StateClaimed && r.Nonce == op.Nonce {
				r.LeaseEnd = r.Expires
			}
		}, func(before driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpClaim && before.State == driver.StateClaimed && before.Nonce == op.Nonce {
				after.LeaseEnd = before.LeaseEnd
			}
		}},
		{"release ignores the token", secondHolder, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpRelease {
				op.Token = r.Token
			}
		}, nil},
		{"complete ignores the token", overwritten, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpComplete && r.Token != op.Token {
				r.State = driver.StateFree
			}
		}, nil},
		{"a repeated complete overwrites", overwritten, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpComplete && r.State == driver.StateDone {
				r.State = driver.StateClaimed
			}
		}, nil},
		{"release takes back what is done", overwritten, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpRelease && r.State == driver.StateDone {
				r.State = driver.StateClaimed
			}
		}, nil},
		{"a released key is granted under its old token", oldToken, func(r *driver.Record, _ *driver.Op, next *dedup.Token) {
			if r.State == driver.StateReleased {
				*next = r.Token
			}
		}, nil},
		{"a park clears ambiguous", secondEffect, nil, func(_ driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpPark {
				after.Ambiguous = op.Ambiguous
			}
		}},
		{"a park that is ambiguous does not say so", secondEffect, func(_ *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpPark {
				op.Ambiguous = false
			}
		}, nil},
		{"unpark clears ambiguous", secondEffect, nil, func(_ driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpUnpark {
				after.Ambiguous = false
			}
		}},
		{"unpark releases a claim", secondHolder, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpUnpark && r.State == driver.StateClaimed {
				r.State, r.LeaseEnd, r.Held, r.Note = driver.StateParked, time.Time{}, dedup.Position{}, nil
			}
		}, nil},
		{"unpark takes back what is done", overwritten, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpUnpark && r.State == driver.StateDone {
				r.State = driver.StateParked
			}
		}, nil},
		{"unpark keeps the token", spokenFor, func(r *driver.Record, op *driver.Op, next *dedup.Token) {
			if op.Kind == driver.OpUnpark {
				*next = r.Token
			}
		}, nil},
		{"a claim with a note is taken over", takenOver, func(r *driver.Record, op *driver.Op, _ *dedup.Token) {
			if op.Kind == driver.OpClaim && !r.LeaseEnd.After(searchNow) {
				r.Note = nil
			}
		}, nil},
		{"an extend drops the note", takenOver, nil, func(_ driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpExtend && op.Note == nil {
				after.Note = nil
			}
		}},
		{"a note outlives its claim", claimless, nil, func(before driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpRelease {
				after.Note = before.Note
			}
		}},
		{"a grant keeps the last holder's position", wrongHolder, nil, func(before driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpClaim && before.State == driver.StateClaimed {
				after.Held = before.Held
			}
		}},
		{"a repeated claim of another takes the position", wrongHolder, nil, func(before driver.Record, op driver.Op, after *driver.Record) {
			if op.Kind == driver.OpClaim && before.State == driver.StateClaimed {
				after.Held = op.Position
			}
		}},
		{"a take-over keeps the token", oldToken, func(r *driver.Record, _ *driver.Op, next *dedup.Token) {
			if r.State == driver.StateClaimed {
				*next = r.Token
			}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			faulty := func(r driver.Record, op driver.Op, now time.Time, next dedup.Token) (driver.Record, driver.Reply) {
				before := r
				if c.before != nil {
					c.before(&r, &op, &next)
				}
				after, reply := driver.Step(r, op, now, next)
				if c.after != nil {
					c.after(before, op, &after)
				}
				reply.Record = after
				return after, reply
			}
			s := newSearch(faulty, 2)
			s.notes = true
			bad := s.run()
			if bad == nil {
				t.Fatalf("got no violation, want: %s", c.want)
			}
			if bad.what != c.want {
				t.Errorf("got %v\nwant: %s", bad, c.want)
			}
			t.Log(bad)
		})
	}
}

// What the search can find.
const (
	secondHolder = "two workers run the handler, and neither was paused past its lease"
	secondEffect = "a second effect whose claim was not Ambiguous"
	overwritten  = "a settled record changed"
	oldToken     = "a claim is granted under the token of another"
	spokenFor    = "a run that parked the key can still speak for it after it was unparked"
	takenOver    = "a claim that had got a note is taken over"
	claimless    = "a record without a claim has what only a claim has"
	wrongHolder  = "a record names another position than its holder's"
)

// searchNow is when everything in a search happens.
var searchNow = time.Unix(1_000_000, 0)

type stepFunc func(r driver.Record, op driver.Op, now time.Time, next dedup.Token) (driver.Record, driver.Reply)

// phase is where a worker stands.
type phase uint8

const (
	idle phase = iota
	// asking: it sent a claim and has no reply. It may send it again.
	asking
	// running: it holds the claim; no effect yet.
	running
	// effected: its handler has had the effect, and goes on.
	effected
	// completing, parking, releasing, and the last two as maybe done: the handler
	// returned, and its answer is to be recorded. Maybe done is Ambiguous.
	completing
	parking
	parkingMaybe
	releasing
	releasingMaybe
)

var phaseNames = [...]string{"idle", "asking", "running", "effected", "completing", "parking", "parking as maybe done", "releasing", "releasing as maybe done"}

const (
	maxWorkers = 3
	leaseTicks = 2
)

// worker is one consumer. Its fields besides phase are zero unless it holds, or
// speaks for, a claim.
type worker struct {
	phase     phase
	token     uint8
	ambiguous bool // what its claim said
	paused    bool // its lease ended while its handler ran
	nonce     bool // the record has the nonce of its claim
	noted     bool // its claim carries a note
}

// world is one state: the record of the key, the workers, and what became of
// the effect. Times count from now, and tokens from the lowest that matters.
type world struct {
	state     driver.State
	token     uint8
	ambiguous bool
	lease     uint8 // ticks left
	noted     bool  // the claim has a note
	got       bool  // it has got one, whatever the record says
	holder    uint8 // whose position the claim has, from 1; 0 if notes are not looked at
	workers   [maxWorkers]worker
	lowest    uint8 // lowest token whose run had the effect
	unflagged uint8 // token of the run that had the effect and was not Ambiguous
}

// search is a walk over all worlds, the near ones first.
type search struct {
	step    stepFunc
	workers int
	notes   bool             // claims may carry notes, and holders are looked at
	from    map[world]origin // how each world was first reached
	queue   []world
	seen    [len(phaseNames)]bool
	steps   int
	bad     *violation
}

type origin struct {
	world  world
	action action
}

// action is what happened in one step. It is data, not text: few are printed.
type action struct {
	worker int8
	what   string
	lost   bool // the reply
	status driver.Status
}

func (a action) String() string {
	if a.worker < 0 {
		return a.what
	}
	text := fmt.Sprintf("worker %d: %s", a.worker+1, a.what)
	if a.status != 0 {
		text += ": " + a.status.String()
	}
	if a.lost {
		text += ", and the reply is lost"
	}
	return text
}

// violation is a run that ends in a state that must not be.
type violation struct {
	what string
	run  []action
}

func (v *violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:", v.what)
	for i, a := range v.run {
		fmt.Fprintf(&b, "\n%3d. %v", i+1, a)
	}
	return b.String()
}

func newSearch(step stepFunc, workers int) *search {
	return &search{step: step, workers: workers, from: map[world]origin{{}: {}}, queue: []world{{}}}
}

// run returns the shortest run to a violation, or nil if there is none.
func (s *search) run() *violation {
	for len(s.queue) > 0 && s.bad == nil {
		w := s.queue[0]
		s.queue = s.queue[1:]
		s.reach(w, action{worker: -1, what: "time passes"}, tick(w))
		s.unpark(w)
		for i := range s.workers {
			s.seen[w.workers[i].phase] = true
			s.act(w, i)
		}
	}
	return s.bad
}

// reach notes that action leads from one world to the next.
func (s *search) reach(from world, a action, to world) {
	s.steps++
	if s.bad != nil {
		return
	}
	to = to.normal()
	if _, known := s.from[to]; !known {
		s.from[to] = origin{from, a}
		s.queue = append(s.queue, to)
	}
	if to.secondHolder() {
		s.fail(secondHolder, from, a)
	}
}

func (s *search) fail(what string, at world, last action) {
	if s.bad != nil {
		return
	}
	run := []action{last}
	for at != (world{}) {
		o := s.from[at]
		run = append(run, o.action)
		at = o.world
	}
	slices.Reverse(run)
	s.bad = &violation{what, run}
}

// tick is what a pause of everyone does: leases run out while handlers run.
func tick(w world) world {
	if w.lease == 0 {
		return w
	}
	w.lease--
	for i := range w.workers {
		if x := &w.workers[i]; w.lease == 0 && x.inHandler() && x.token == w.token {
			x.paused = true
		}
	}
	return w
}

func (x worker) inHandler() bool { return x.phase == running || x.phase == effected }

func (w world) secondHolder() bool {
	held := 0
	for _, x := range w.workers {
		if x.inHandler() && !x.paused {
			held++
		}
	}
	return held > 1
}

// act takes every step that worker i can take.
func (s *search) act(w world, i int) {
	x := w.workers[i]
	become := func(what string, p phase) {
		next := w
		next.workers[i].phase = p
		s.reach(w, action{worker: int8(i), what: what}, next)
	}
	if x.phase != idle {
		next := w
		next.workers[i] = worker{}
		s.reach(w, action{worker: int8(i), what: "crashes"}, next)
	}
	switch x.phase {
	case idle:
		s.claim(w, i, "claims")
		if s.notes {
			w.workers[i].noted = true
			s.claim(w, i, "claims with a note")
		}
	case asking:
		s.claim(w, i, "claims again with the same nonce")
	case running:
		s.effect(w, i)
		become("fails before the effect", releasing)
		become("fails for good before the effect", parking)
		become("is told to stop before the effect", releasingMaybe)
		s.extend(w, i, running)
	case effected:
		become("succeeds", completing)
		become("fails after the effect", releasingMaybe)
		become("fails for good after the effect", parkingMaybe)
		s.extend(w, i, effected)
	case completing:
		s.send(w, i, "completes", driver.Op{Kind: driver.OpComplete, TTL: time.Hour, Result: []byte("new")}, idle)
	case parking:
		s.send(w, i, "parks", driver.Op{Kind: driver.OpPark, TTL: time.Hour, Result: []byte("new")}, idle)
	case parkingMaybe:
		s.send(w, i, "parks as maybe done", driver.Op{Kind: driver.OpPark, TTL: time.Hour, Result: []byte("new"), Ambiguous: true}, idle)
	case releasing:
		s.send(w, i, "releases", driver.Op{Kind: driver.OpRelease, TTL: time.Hour}, idle)
	case releasingMaybe:
		s.send(w, i, "releases as maybe done", driver.Op{Kind: driver.OpRelease, TTL: time.Hour, Ambiguous: true}, idle)
	}
}

func (s *search) extend(w world, i int, then phase) {
	op := driver.Op{Kind: driver.OpExtend, Lease: leaseTicks * time.Second, TTL: time.Hour}
	s.send(w, i, "extends", op, then)
	if s.notes {
		op.Note = []byte("note")
		s.send(w, i, "extends with a note", op, then)
	}
}

// unpark is what an operator may do at any moment.
func (s *search) unpark(w world) {
	a := action{worker: -1, what: "an operator unparks"}
	parked := w.state == driver.StateParked
	after, reply := s.apply(w, -1, driver.Op{Kind: driver.OpUnpark, TTL: time.Hour}, a)
	for i := range after.workers {
		x := &after.workers[i]
		if parked && reply.Status == driver.StatusOK && x.token != 0 && x.token == after.token {
			s.fail(spokenFor, w, a)
		}
	}
	s.reach(w, a, after)
}

// claim sends a claim, with a nonce of its own unless it is a repeated one.
func (s *search) claim(w world, i int, what string) {
	op := driver.Op{Kind: driver.OpClaim, Lease: leaseTicks * time.Second, TTL: time.Hour}
	if w.workers[i].noted {
		op.Note = []byte("note")
	}
	after, reply := s.apply(w, i, op, action{worker: int8(i), what: what})
	a := action{worker: int8(i), what: what, status: reply.Status}

	lost := after
	lost.workers[i].phase = asking
	a.lost = true
	s.reach(w, a, lost)

	a.lost = false
	if reply.Status == driver.StatusGranted {
		after.workers[i].phase = running
		after.workers[i].token = uint8(reply.Record.Token)
		after.workers[i].ambiguous = reply.Record.Ambiguous
	} else {
		after.workers[i] = worker{}
	}
	s.reach(w, a, after)
}

// send sends an op for worker i's claim. With the reply the worker goes on to
// phase then; without, it stays where it is, and may send the op again.
func (s *search) send(w world, i int, what string, op driver.Op, then phase) {
	op.Token = dedup.Token(w.workers[i].token)
	after, reply := s.apply(w, i, op, action{worker: int8(i), what: what})
	a := action{worker: int8(i), what: what, status: reply.Status}
	if then == idle {
		a.lost = true
		s.reach(w, a, after)
		a.lost = false
		after.workers[i] = worker{}
	}
	s.reach(w, a, after)
}

// effect lets the handler of worker i have its effect.
func (s *search) effect(w world, i int) {
	a := action{worker: int8(i), what: "has its effect"}
	x := w.workers[i]
	next := w
	next.workers[i].phase = effected
	if next.lowest == 0 || x.token < next.lowest {
		next.lowest = x.token
	}
	if !x.ambiguous {
		if w.unflagged != 0 {
			s.fail(secondEffect, w, a)
			return
		}
		next.unflagged = x.token
	}
	// A paused run may have its effect after a later claim had one. That later
	// claim is the second, and had to be flagged.
	if next.unflagged > next.lowest {
		s.fail(secondEffect, w, a)
		return
	}
	s.reach(w, a, next)
}

// apply runs the step under test and holds it to what concerns the record. Nobody
// is worker -1.
func (s *search) apply(w world, i int, op driver.Op, a action) (world, driver.Reply) {
	const nobody = 99
	now := searchNow
	before := driver.Record{State: w.state, Token: dedup.Token(w.token), Ambiguous: w.ambiguous, Nonce: nobody}
	if w.state != driver.StateFree {
		before.Expires = now.Add(time.Hour)
	}
	switch w.state {
	case driver.StateClaimed:
		before.LeaseEnd = now.Add(time.Duration(w.lease) * time.Second)
		before.Held.Offset = int64(w.holder)
		if w.noted {
			before.Note = []byte("note")
		}
	case driver.StateDone, driver.StateParked:
		before.Result = []byte("old")
	}
	for j, x := range w.workers {
		if x.nonce {
			before.Nonce = uint64(j)
		}
	}
	next := dedup.Token(w.highest() + 1)
	op.Nonce = uint64(i)
	if op.Kind == driver.OpClaim {
		if w.workers[i].phase == idle {
			w.workers[i].nonce = false // of an earlier claim
			if before.Nonce == uint64(i) {
				before.Nonce = nobody
			}
		}
		if s.notes {
			op.Position.Offset = int64(i) + 1
		}
	}
	after, reply := s.step(before, op, now, next)
	a.status = reply.Status

	settled := before.State == driver.StateDone || before.State == driver.StateParked && op.Kind != driver.OpUnpark
	if settled && (after.State != before.State || after.Token != before.Token || string(after.Result) != "old") {
		s.fail(overwritten, w, a)
	}
	repeated := before.State == driver.StateClaimed && before.Nonce == op.Nonce
	granted := reply.Status == driver.StatusGranted
	if granted && after.Token != next && !(repeated && after.Token == before.Token) {
		s.fail(oldToken, w, a)
	}
	if w.got && granted && after.Token != before.Token {
		s.fail(takenOver, w, a)
	}
	holder := int64(w.holder)
	if granted && after.Token != before.Token {
		holder = op.Position.Offset
	}
	switch claimed := after.State == driver.StateClaimed; {
	case !claimed && (len(after.Note) > 0 || after.Held != (dedup.Position{}) || !after.LeaseEnd.IsZero()):
		s.fail(claimless, w, a)
	case claimed && after.Held.Offset != holder:
		s.fail(wrongHolder, w, a)
	}

	ours := op.Kind == driver.OpExtend && reply.Status == driver.StatusOK || granted && after.Token != before.Token
	w.got = after.State == driver.StateClaimed && (w.got || ours && len(op.Note) > 0)
	w.state, w.token, w.ambiguous, w.lease = after.State, uint8(after.Token), after.Ambiguous, 0
	w.noted, w.holder = len(after.Note) > 0, uint8(after.Held.Offset)
	if after.State == driver.StateClaimed && after.LeaseEnd.After(now) {
		w.lease = uint8(after.LeaseEnd.Sub(now) / time.Second)
	}
	for j := range w.workers {
		w.workers[j].nonce = after.State == driver.StateClaimed && after.Nonce == uint64(j)
	}
	return w, reply
}

func (w world) highest() (top uint8) {
	w.eachToken(func(t *uint8) { top = max(top, *t) })
	return top
}

// normal renumbers the tokens that something still depends on by their order,
// so that worlds that behave alike are equal.
func (w world) normal() world {
	var present [32]bool
	w.eachToken(func(t *uint8) { present[*t] = true })
	var rank [32]uint8
	n := uint8(0)
	for t := 1; t < len(present); t++ {
		if present[t] {
			n++
			rank[t] = n
		}
	}
	w.eachToken(func(t *uint8) { *t = rank[*t] })
	return w
}

// eachToken calls f for every token, zero for none.
func (w *world) eachToken(f func(*uint8)) {
	f(&w.token)
	f(&w.lowest)
	f(&w.unflagged)
	for i := range w.workers {
		f(&w.workers[i].token)
	}
}
