package boltstore

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

const (
	keptFor      = 5 // runs: some keys are carried forward from file to file that long
	forgottenFor = 3 // runs: so long it is looked whether a forgotten key comes back
)

// ledger holds what a store has acknowledged, which it must know after a crash.
type ledger struct {
	mu     sync.Mutex
	groups map[group]fact
	kept   map[driver.ID]known
	gone   map[driver.ID]int // forgotten in that run
	high   driver.Token
	vouch  driver.Vouch // what it said when it was new

	acknowledged, checked, lost, orphans, carried int
}

// known is a key that is done.
type known struct {
	token driver.Token
	since int    // run
	seq   uint64 // place in the log when it was last seen
}

func newLedger() *ledger {
	return &ledger{groups: make(map[group]fact), kept: make(map[driver.ID]known), gone: make(map[driver.ID]int)}
}

// write takes down a fact.
func (l *ledger) write(f fact) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, token := range f.tokens {
		l.high = max(l.high, token)
	}
	switch f.phase {
	case claimed:
		l.acknowledged += groupSize + around
		f.tokens = f.tokens[:groupSize]
	case settled, forgotten:
		l.acknowledged += groupSize - 1
	}
	if f.phase != claimed {
		f.tokens = l.groups[f.group].tokens
	}
	l.groups[f.group] = f
}

// audit compares the store after the crash of a run with the ledger, lets the orphans run
// again, and forgets most keys: where many live, no file is dropped.
func (l *ledger) audit(t *testing.T, s *Store, run int) {
	t.Helper()
	l.checkMemory(t, s, run)
	var orphans []driver.ID
	var attempts []int
	for g, f := range l.groups {
		for i := range groupSize {
			r, seq := l.find(t, s, run, g.id(i))
			if err := f.check(i, r); err != nil {
				l.lost++
				t.Errorf("run %d: key %d of %+v: found %+v: %v", run, i, f, r, err)
			}
			switch r.State {
			case driver.StateClaimed:
				orphans, attempts = append(orphans, g.id(i)), append(attempts, r.Attempt)
			case driver.StateFree:
				l.gone[g.id(i)] = run
			default:
				l.kept[g.id(i)] = known{since: run, seq: seq, token: r.Token}
			}
		}
	}
	begun := l.begun(run)
	clear(l.groups)
	l.adopt(t, s, run, orphans, attempts)
	l.forget(t, s, run, begun)
}

// begun are the keys of groups of which the store may have been told, and the ledger
// was not.
func (l *ledger) begun(run int) (ids []driver.ID) {
	for w := range workers {
		g := group{run: run, worker: w}
		for l.groups[g].phase != 0 {
			g.n++
		}
		for i := range groupSize {
			ids = append(ids, g.id(i))
		}
	}
	return ids
}

// checkMemory looks at what the store says of itself, and at what was there before
// the last run.
func (l *ledger) checkMemory(t *testing.T, s *Store, run int) {
	t.Helper()
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatalf("run %d: %v", run, err)
	}
	if st.Token < l.high {
		t.Errorf("run %d: the store's highest token is %d, and %d was issued", run, st.Token, l.high)
	}
	if l.vouch == (driver.Vouch{}) {
		l.vouch = st.Vouch
	}
	if st.Vouch != l.vouch {
		t.Errorf("run %d: the store vouches for %+v, and for %+v when it was new", run, st.Vouch, l.vouch)
	}
	for id, k := range l.kept {
		r, seq := l.find(t, s, run, id)
		if r.Token != k.token || r.State == driver.StateDone && string(r.Result) != string(resultOf(k.token)) || r.State < driver.StateReleased {
			l.lost++
			t.Errorf("run %d: a key that was settled under token %d in run %d: found %+v", run, k.token, k.since, r)
		}
		if seq != k.seq {
			l.carried++
			k.seq = seq
			l.kept[id] = k
		}
	}
	for id, forgotten := range l.gone {
		if r, _ := l.find(t, s, run, id); r.State != driver.StateFree {
			t.Errorf("run %d: a key that was forgotten in run %d: found %+v, want no record", run, forgotten, r)
		}
		if run-forgotten >= forgottenFor {
			delete(l.gone, id)
		}
	}
}

// find returns the living record of id, and its place in the log.
func (l *ledger) find(t *testing.T, s *Store, run int, id driver.ID) (driver.Record, uint64) {
	t.Helper()
	l.checked++
	var v view
	at, err := s.load(&v, id)
	if err = errors.Join(err, v.close()); err != nil {
		t.Fatalf("run %d: %v", run, err)
	}
	if !at.record.Expires.After(s.clock.now()) {
		return driver.Record{}, 0
	}
	return at.record, at.seq
}

// check says whether r can be the record of the i-th key of the group: what was
// acknowledged must be there, and what was begun after that may be.
func (f fact) check(i int, r driver.Record) error {
	state := map[driver.OpKind]driver.State{
		0: driver.StateClaimed, driver.OpComplete: driver.StateDone, driver.OpPark: driver.StateParked, driver.OpRelease: driver.StateReleased,
	}[fate(i)]
	switch {
	case r.State == driver.StateFree:
		if fate(i) != 0 && f.phase >= forgetting {
			return nil
		}
		return errors.New("it is lost")
	case fate(i) != 0 && f.phase == forgotten:
		return errors.New("it was forgotten")
	case r.Token != f.tokens[i]:
		return fmt.Errorf("want token %d", f.tokens[i])
	case r.First != position || r.Ambiguous:
		return errors.New("want its position, and nothing Ambiguous")
	case r.State == driver.StateClaimed && f.phase == claimed:
		return nil
	case r.State != state:
		return fmt.Errorf("want state %v", state)
	case (state == driver.StateDone || state == driver.StateParked) && string(r.Result) != string(resultOf(r.Token)):
		return fmt.Errorf("want the result %q", resultOf(r.Token))
	case (state == driver.StateReleased) != (r.Attempt == 1):
		return errors.New("want an attempt counted for a release only")
	}
	return nil
}

// adopt claims the orphans and completes them.
func (l *ledger) adopt(t *testing.T, s *Store, run int, ids []driver.ID, attempts []int) {
	t.Helper()
	l.orphans += len(ids)
	var claims, completes []driver.Op
	for _, id := range ids {
		claims = append(claims, driver.Op{Kind: driver.OpClaim, ID: id, Nonce: 99, Lease: time.Minute, TTL: time.Hour})
	}
	replies, err := applyAll(t.Context(), s, claims, driver.StatusGranted)
	if err != nil {
		t.Fatalf("run %d: claim of orphans: %v", run, err)
	}
	issued := l.high
	for i, reply := range replies {
		r := reply.Record
		if !r.Ambiguous || r.Attempt != attempts[i]+1 || r.Token <= issued {
			t.Errorf("run %d: claim of an orphan: got %+v, want it Ambiguous, Attempt %d, a token above %d", run, r, attempts[i]+1, issued)
		}
		l.high = max(l.high, r.Token)
		completes = append(completes, settleOp(driver.OpComplete, ids[i], r.Token))
	}
	if _, err := applyAll(t.Context(), s, completes, driver.StatusOK); err != nil {
		t.Fatalf("run %d: complete orphans: %v", run, err)
	}
	for i, op := range completes {
		_, seq := l.find(t, s, run, ids[i])
		l.kept[ids[i]] = known{since: run, seq: seq, token: op.Token}
	}
	l.acknowledged += len(claims) + len(completes)
}

// forget forgets ids, and what is kept, but for a few keys of each run, until they
// are old.
func (l *ledger) forget(t *testing.T, s *Store, run int, ids []driver.ID) {
	t.Helper()
	few := 0
	for id, k := range l.kept {
		if k.since == run && few < 3 {
			few++
			continue
		}
		if k.since == run || run-k.since >= keptFor {
			ids = append(ids, id)
		}
	}
	if err := s.ForceForget(t.Context(), ids); err != nil {
		t.Fatalf("run %d: %v", run, err)
	}
	for _, id := range ids {
		delete(l.kept, id)
		l.gone[id] = run
	}
	l.acknowledged += len(ids)
}

func (l *ledger) String() string {
	return fmt.Sprintf("%d acknowledged ops, %d records looked at, %d lost, %d orphans, %d seen carried forward", l.acknowledged, l.checked, l.lost, l.orphans, l.carried)
}

// wantLoad wants so much to have happened in so many runs that the ledger's word
// counts. oldest is the number of the store's oldest file.
func (l *ledger) wantLoad(t *testing.T, runs int, oldest uint64) {
	t.Helper()
	t.Logf("%d runs: %v, oldest file %d", runs, l, oldest)
	if l.acknowledged < 500*runs || l.checked < 100*runs || l.orphans < runs || oldest < 2 || (runs >= 100 && l.carried < runs) {
		t.Errorf("this was no load: want thousands of acknowledged ops, orphans from each run, records carried forward, and files dropped")
	}
}
