package storetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Model drives a store with random batches of operations and random steps of time. It fails if an
// answer is not the one that [driver.Step] gives, and reports the shortest failing run that it can
// find. The flags -rapid.checks and -rapid.steps make it run longer.
func Model(t *testing.T, open func(t *testing.T, clock Clock) driver.Store) {
	s := newSuite(t, open)
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(s)
		rt.Repeat(w.actions())
	})
}

// walk is one random run over keys of its own. Runs share a store, so that
// opening one costs nothing and each finds the remains of the others.
type walk struct {
	suite  *suite
	ids    []driver.ID
	model  model
	tokens []driver.Token // every token granted so far
}

func newWalk(s *suite) *walk {
	return &walk{suite: s, ids: []driver.ID{s.id(), s.id(), s.id()}, model: newModel()}
}

func (w *walk) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"apply": w.apply,
		"advance": func(t *rapid.T) {
			w.suite.advance(rapid.SampledFrom(advances).Draw(t, "by"))
		},
	}
}

var (
	// Leases and times meet: many leases end just when something happens.
	advances     = []time.Duration{tick, 9 * tick, 10 * tick, time.Second, lease, ttl}
	leases       = []time.Duration{tick, 10 * tick, time.Second, lease}
	ttls         = []time.Duration{tick, 10 * tick, lease, ttl}
	fingerprints = []driver.Fingerprint{{}, fingerprint, fingerprint, otherPrint}
	notes        = [][]byte{nil, nil, nil, nil, nil, []byte("note"), []byte("a longer note"), {}, {0, 0xff}}
	results      = [][]byte{nil, []byte("result"), []byte("another"), {0xff, 0}}
)

func (w *walk) apply(t *rapid.T) {
	ops := make([]driver.Op, rapid.IntRange(1, 6).Draw(t, "ops"))
	for i := range ops {
		ops[i] = w.op(t)
	}
	replies, err := apply(w.suite.t, w.suite.store, ops)
	if err != nil {
		t.Fatal(err)
	}
	for i, op := range ops {
		before := w.model.String(op.ID)
		if err := w.model.check(op, w.suite.now(), replies[i]); err != nil {
			t.Fatalf("op %d of %d, %+v\nat %v, on %s: %v", i+1, len(ops), op, w.suite.now(), before, err)
		}
		if replies[i].Status == driver.StatusGranted {
			w.tokens = append(w.tokens, replies[i].Record.Token)
		}
	}
}

// op draws an operation, more often than not one that means something to the
// record: one with the token of the key's last claim.
func (w *walk) op(t *rapid.T) driver.Op {
	op := driver.Op{
		Kind: rapid.SampledFrom([]driver.OpKind{
			driver.OpClaim, driver.OpClaim, driver.OpClaim,
			driver.OpExtend, driver.OpComplete, driver.OpPark, driver.OpPark, driver.OpRelease, driver.OpRelease, driver.OpUnpark,
		}).Draw(t, "kind"),
		ID:  rapid.SampledFrom(w.ids).Draw(t, "id"),
		TTL: rapid.SampledFrom(ttls).Draw(t, "ttl"),
	}
	switch op.Kind {
	case driver.OpClaim:
		op.Nonce = rapid.Uint64Range(1, 3).Draw(t, "nonce")
	case driver.OpUnpark:
	default:
		op.Token = w.token(t, op.ID)
	}
	switch op.Kind {
	case driver.OpClaim, driver.OpExtend:
		op.Lease = rapid.SampledFrom(leases).Draw(t, "lease")
		op.Note = rapid.SampledFrom(notes).Draw(t, "note")
	case driver.OpComplete, driver.OpPark:
		op.Result = rapid.SampledFrom(results).Draw(t, "result")
		op.Omitted = op.Kind == driver.OpComplete && rapid.Bool().Draw(t, "omitted")
		op.Ambiguous = rapid.Bool().Draw(t, "ambiguous")
	case driver.OpRelease:
		op.Ambiguous = rapid.Bool().Draw(t, "ambiguous")
		op.Uncounted = rapid.Bool().Draw(t, "uncounted")
	}
	if (op.Kind == driver.OpClaim || op.Kind == driver.OpUnpark) && rapid.IntRange(0, 3).Draw(t, "with floor") == 0 {
		op.Floor = w.anyToken(t) + driver.Token(rapid.IntRange(0, 5).Draw(t, "above"))
	}
	if op.Kind == driver.OpClaim || op.Kind == driver.OpComplete || op.Kind == driver.OpPark {
		op.Tag = rapid.SampledFrom([]driver.Tag{0, 0, tag}).Draw(t, "tag")
		op.Fingerprint = rapid.SampledFrom(fingerprints).Draw(t, "fingerprint")
		op.Position = rapid.SampledFrom([]driver.Position{position, elsewhere}).Draw(t, "position")
	}
	return op
}

// token draws the key's latest token, or any other.
func (w *walk) token(t *rapid.T, id driver.ID) driver.Token {
	if rapid.IntRange(0, 4).Draw(t, "other token") == 0 {
		return w.anyToken(t)
	}
	return w.model.highest[id]
}

func (w *walk) anyToken(t *rapid.T) driver.Token {
	if len(w.tokens) == 0 {
		return 1
	}
	return rapid.SampledFrom(w.tokens).Draw(t, "token")
}

// model holds the records that a store may have. Each key usually has one; after a
// reopen, a store may have kept one of several.
type model struct {
	records map[driver.ID][]driver.Record
	highest map[driver.ID]driver.Token // greatest token of the key so far
	granted map[driver.ID]time.Time    // Expires of the record when the key was last granted, or got a note
}

func newModel() model {
	return model{
		records: make(map[driver.ID][]driver.Record),
		highest: make(map[driver.ID]driver.Token),
		granted: make(map[driver.ID]time.Time),
	}
}

// check holds a reply to Step, and moves on to the record after op.
func (m model) check(op driver.Op, now time.Time, reply driver.Reply) error {
	possible := m.records[op.ID]
	if len(possible) == 0 {
		possible = []driver.Record{{}}
	}
	var after []driver.Record
	var wrong error
	for _, r := range possible {
		next, err := follow(r, op, now, m.highest[op.ID], reply)
		if err != nil {
			wrong = err
			continue
		}
		after = append(after, next)
	}
	if len(after) == 0 {
		return wrong
	}
	m.records[op.ID] = after
	noted := op.Kind == driver.OpExtend && reply.Status == driver.StatusOK && len(op.Note) > 0
	if noted || reply.Status == driver.StatusGranted && after[0].Token > m.highest[op.ID] {
		m.granted[op.ID] = after[0].Expires
	}
	m.highest[op.ID] = max(m.highest[op.ID], after[0].Token)
	return nil
}

// String lists the records that the store may have of id.
func (m model) String(id driver.ID) string {
	if len(m.records[id]) == 0 {
		return "no record"
	}
	var b strings.Builder
	for i, r := range m.records[id] {
		if i > 0 {
			b.WriteString(" or ")
		}
		fmt.Fprintf(&b, "%+v", r)
	}
	return b.String()
}

// follow returns the record after op, or an error that says how the reply is wrong.
// The store chooses the token of a new grant; it must be greater than highest and
// than the floor.
func follow(r driver.Record, op driver.Op, now time.Time, highest driver.Token, reply driver.Reply) (driver.Record, error) {
	const undecided = 0
	after, want := driver.Step(r, op, now, undecided)
	if reply.Status != want.Status {
		return r, fmt.Errorf("got status %v, want %v (got record %+v)", reply.Status, want.Status, reply.Record)
	}
	chooses := want.Status == driver.StatusGranted || op.Kind == driver.OpUnpark && want.Status == driver.StatusOK
	if chooses && want.Record.State != driver.StateFree && want.Record.Token == undecided {
		token := reply.Record.Token
		if token <= highest || token <= op.Floor {
			return r, fmt.Errorf("got token %d, want more than the key's last, %d, and than the floor, %d", token, highest, op.Floor)
		}
		after, want = driver.Step(r, op, now, token)
	}
	if err := diff(reply.Record, want.Record, now); err != nil {
		return r, fmt.Errorf("%v: %w", reply.Status, err)
	}
	return after, nil
}
