package storetest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
)

// reference is the simplest store that keeps the contract, durable when it is
// closed in peace. Its faults break single rules, to see that the suite notices.
type reference struct {
	fault string
	file  string
	clock storetest.Clock
	start time.Time

	mu     sync.Mutex
	closed bool
	saved  saved
}

// saved is the file that the reference store writes when it is closed.
type saved struct {
	Vouch   driver.Vouch
	High    driver.Token
	Base    time.Time // store time at open
	Records map[string]driver.Record
	TTL     time.Duration // longest so far
	Longer  []longer
}

// longer says when a TTL was longer than all before, of which the longest was Old.
type longer struct {
	At  time.Time
	Old time.Duration
}

func openReference(t *testing.T, dir string, clock storetest.Clock, fault string) *reference {
	t.Helper()
	now := clock.Now()
	s := &reference{fault: fault, file: filepath.Join(dir, "reference.json"), clock: clock, start: now}
	s.saved = saved{Base: now, Records: make(map[string]driver.Record)}
	s.saved.Vouch = fresh(now)
	data, err := os.ReadFile(s.file)
	if errors.Is(err, os.ErrNotExist) {
		return s
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &s.saved); err != nil {
		t.Fatal(err)
	}
	if now.After(s.saved.Base) || fault == "wall clock" {
		s.saved.Base = now
	}
	switch fault {
	case "new identity":
		s.saved.Vouch = fresh(now)
	case "lost high-water mark":
		s.saved.High = 0
	case "lost TTL":
		s.saved.TTL = 0
	case "lost longer TTL":
		s.saved.Longer = nil
	}
	for id, r := range s.saved.Records {
		if !r.Expires.After(s.saved.Base) {
			delete(s.saved.Records, id)
			continue
		}
		if r.State == driver.StateClaimed && fault != "leases outlive their process" {
			r.LeaseEnd = s.saved.Base
		}
		if r.State == driver.StateClaimed && fault == "orphans released" {
			r.State = driver.StateReleased
		}
		if fault == "lost notes" {
			r.Note = nil
		}
		if fault == "lost attempts" {
			r.Attempt = 0
		}
		s.saved.Records[id] = r
	}
	return s
}

func fresh(now time.Time) driver.Vouch {
	return driver.Vouch{ID: fmt.Sprint("reference ", now), Since: now}
}

func (s *reference) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved.Base = s.now()
	s.closed = s.fault != "open when closed"
	data, err := json.Marshal(s.saved)
	if err != nil {
		return err
	}
	return os.WriteFile(s.file, data, 0o600)
}

func (s *reference) now() time.Time {
	if s.fault == "slow clock" {
		return s.saved.Base.Add(s.clock.Now().Sub(s.start) * 999 / 1000)
	}
	return s.saved.Base.Add(s.clock.Now().Sub(s.start))
}

func (s *reference) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	if err := ctx.Err(); err != nil && s.fault != "deaf to the context" {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("reference: the store is closed")
	}
	if len(ops) == 0 && s.fault == "empty batch" {
		return make([]driver.Reply, 1), nil
	}
	replies := make([]driver.Reply, len(ops))
	for i := range ops {
		at := i
		if s.fault == "last op first" {
			at = len(ops) - 1 - i
		}
		replies[at] = s.apply(ops[at])
		if s.fault == "stops at the first refusal" && replies[at].Status == driver.StatusLost {
			for j := at + 1; j < len(ops); j++ {
				replies[j] = driver.Reply{Status: driver.StatusLost}
			}
			break
		}
	}
	if s.fault == "replies after the batch" {
		for i, op := range ops {
			replies[i].Record = s.saved.Records[op.ID.String()]
		}
	}
	return replies, nil
}

func (s *reference) apply(op driver.Op) driver.Reply {
	now := s.now()
	if s.fault == "53-bit nonces" {
		op.Nonce = uint64(float64(op.Nonce))
	}
	if s.fault == "leases by milliseconds past" {
		op.Lease += time.Millisecond
	}
	s.see(op, now)
	before := s.saved.Records[op.ID.String()]
	next := s.next(before, op.Floor)
	if s.fault != "keeps what it is given" {
		op.Result, op.Note = bytes.Clone(op.Result), bytes.Clone(op.Note)
	}
	if s.fault == "not atomic" {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	switch {
	case s.fault == "takes a note over" && op.Kind == driver.OpClaim && !before.LeaseEnd.After(now):
		before.Note = nil
	case s.fault == "compares all fingerprints":
		op.Tag = before.Tag
	case s.fault == "unparks under the old token" && op.Kind == driver.OpUnpark:
		next = before.Token
	case s.fault == "forgets who holds" && op.Kind == driver.OpClaim && before.State != driver.StateFree:
		op.Position = before.First
	case s.fault == "drops notes of extends" && op.Kind == driver.OpExtend:
		op.Note = nil
	}
	after, reply := driver.Step(before, op, now, next)
	if reply.Err != nil {
		return reply
	}
	switch {
	case s.fault == "park forgets ambiguous" && op.Kind == driver.OpPark:
		after.Ambiguous = false
	case s.fault == "unpark keeps attempts" && op.Kind == driver.OpUnpark:
		after.Attempt = before.Attempt
	case s.fault == "release forgets ambiguous" && op.Kind == driver.OpRelease:
		after.Ambiguous = false
	case s.fault == "repeated claim prolongs" && reply.Status == driver.StatusGranted:
		after.LeaseEnd = now.Add(op.Lease)
	case s.fault == "duplicate prolongs" && reply.Status == driver.StatusDone:
		after.Expires = now.Add(op.TTL)
	case s.fault == "retried complete overwrites" && op.Kind == driver.OpComplete && reply.Status == driver.StatusOK:
		after.Result = op.Result
	}
	reply.Record = after
	s.saved.High = max(s.saved.High, after.Token)
	s.saved.Records[op.ID.String()] = after
	if after.State == driver.StateFree {
		delete(s.saved.Records, op.ID.String())
	}
	if s.fault != "gives away what it keeps" {
		reply.Record.Result, reply.Record.Note = bytes.Clone(reply.Record.Result), bytes.Clone(reply.Record.Note)
	}
	return reply
}

func (s *reference) next(r driver.Record, floor driver.Token) driver.Token {
	now := s.now()
	switch s.fault {
	case "tokens of a record":
		if r.Expires.After(now) {
			return driver.NextToken(r.Token, floor, s.start)
		}
		return driver.NextToken(0, floor, s.start)
	case "tokens count from one":
		return max(s.saved.High, floor) + 1
	case "no floor":
		floor = 0
	}
	return driver.NextToken(s.saved.High, floor, now)
}

func (s *reference) see(op driver.Op, now time.Time) {
	longest := s.saved.TTL
	switch {
	case op.Kind == driver.OpExtend:
		return
	case s.fault == "TTL of claims alone" && op.Kind != driver.OpClaim:
		return
	case s.fault == "TTL of the last op":
		s.saved.TTL = op.TTL
	default:
		s.saved.TTL = max(longest, op.TTL)
	}
	if longest > 0 && op.TTL > longest && s.fault != "deaf to the TTL" {
		s.saved.Longer = append(s.saved.Longer, longer{now, longest})
	}
}

func (s *reference) vouch() driver.Vouch {
	v := s.saved.Vouch
	for _, l := range s.saved.Longer {
		since := s.now().Add(-l.Old)
		if since.After(l.At) {
			since = l.At
		}
		if s.fault == "raised once" {
			since = l.At.Add(-l.Old)
		}
		if since.After(v.Since) {
			v.Since = since
		}
	}
	return v
}

func (s *reference) Vouch(context.Context) (driver.Vouch, error) {
	if s.fault == "restless vouch" {
		return fresh(s.clock.Now()), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vouch(), nil
}

func (s *reference) Lookup(ctx context.Context, id driver.ID) (driver.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookup(id), ctx.Err()
}

func (s *reference) lookup(id driver.ID) driver.Record {
	r := s.saved.Records[id.String()]
	if !r.Expires.After(s.now()) && s.fault != "shows the expired" {
		return driver.Record{}
	}
	r.Result = bytes.Clone(r.Result)
	return r
}

func (s *reference) Records(ctx context.Context) iter.Seq2[driver.StoredRecord, error] {
	return func(yield func(driver.StoredRecord, error) bool) {
		s.mu.Lock()
		var all []driver.StoredRecord
		for text := range s.saved.Records {
			id, _ := driver.ParseID(text)
			if r := s.lookup(id); r.State != driver.StateFree {
				all = append(all, driver.StoredRecord{ID: id, Record: r})
			}
		}
		if s.fault != "locked while it lists" {
			s.mu.Unlock()
		}
		for _, r := range all {
			if err := ctx.Err(); err != nil {
				yield(driver.StoredRecord{}, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (s *reference) Stats(ctx context.Context) (driver.Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(len(s.saved.Records))
	if s.fault == "miscounts" {
		n = 1
	}
	return driver.Stats{Records: n, Now: s.now(), Token: s.saved.High, Vouch: s.vouch()}, ctx.Err()
}

func (s *reference) Forget(ctx context.Context, ids []driver.ID) error {
	return s.forget(ctx, ids, func(r driver.Record) bool {
		switch {
		case r.State == driver.StateClaimed && r.LeaseEnd.After(s.now()):
			return s.fault != "forgets the living"
		case r.State == driver.StateClaimed:
			return s.fault != "forgets the lapsed"
		}
		return r.Ambiguous && s.fault != "forgets the ambiguous"
	})
}

func (s *reference) ForceForget(ctx context.Context, ids []driver.ID) error {
	return s.forget(ctx, ids, func(r driver.Record) bool { return r.Note != nil && s.fault != "forces a note" })
}

func (s *reference) forget(ctx context.Context, ids []driver.ID, refuses func(driver.Record) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if refuses(s.lookup(id)) {
			return fmt.Errorf("reference: %v: %w", id, driver.ErrBusy)
		}
		if s.fault == "forgets up to the refused" {
			delete(s.saved.Records, id.String())
		}
	}
	for _, id := range ids {
		delete(s.saved.Records, id.String())
	}
	return nil
}
