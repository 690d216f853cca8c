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

	"github.com/oncequeue/oncequeue/dedup"
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
	Vouch   dedup.Vouch
	High    dedup.Token
	Base    time.Time // store time at open
	Records map[string]dedup.Record
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
	s.saved = saved{Base: now, Records: make(map[string]dedup.Record)}
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
		if r.State == dedup.StateClaimed && fault != "leases outlive their process" {
			r.LeaseEnd = s.saved.Base
		}
		if r.State == dedup.StateClaimed && fault == "orphans released" {
			r.State = dedup.StateReleased
		}
		if fault == "lost attempts" {
			r.Attempt = 0
		}
		s.saved.Records[id] = r
	}
	return s
}

func fresh(now time.Time) dedup.Vouch {
	return dedup.Vouch{ID: fmt.Sprint("reference ", now), Since: now}
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

func (s *reference) Apply(ctx context.Context, ops []dedup.Op) ([]dedup.Reply, error) {
	if err := ctx.Err(); err != nil && s.fault != "deaf to the context" {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("reference: the store is closed")
	}
	if len(ops) == 0 && s.fault == "empty batch" {
		return make([]dedup.Reply, 1), nil
	}
	replies := make([]dedup.Reply, len(ops))
	for i := range ops {
		at := i
		if s.fault == "last op first" {
			at = len(ops) - 1 - i
		}
		replies[at] = s.apply(ops[at])
		if s.fault == "stops at the first refusal" && replies[at].Status == dedup.StatusLost {
			for j := at + 1; j < len(ops); j++ {
				replies[j] = dedup.Reply{Status: dedup.StatusLost}
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

func (s *reference) apply(op dedup.Op) dedup.Reply {
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
		op.Result = bytes.Clone(op.Result)
	}
	if s.fault == "not atomic" {
		s.mu.Unlock()
		runtime.Gosched()
		s.mu.Lock()
	}
	after, reply := dedup.Step(before, op, now, next)
	switch {
	case s.fault == "release forgets ambiguous" && op.Kind == dedup.OpRelease:
		after.Ambiguous = false
	case s.fault == "repeated claim prolongs" && reply.Status == dedup.StatusGranted:
		after.LeaseEnd = now.Add(op.Lease)
	case s.fault == "duplicate prolongs" && reply.Status == dedup.StatusDone:
		after.Expires = now.Add(op.TTL)
	case s.fault == "retried complete overwrites" && op.Kind == dedup.OpComplete && reply.Status == dedup.StatusOK:
		after.Result = op.Result
	}
	reply.Record = after
	s.saved.High = max(s.saved.High, after.Token)
	s.saved.Records[op.ID.String()] = after
	if after.State == dedup.StateFree {
		delete(s.saved.Records, op.ID.String())
	}
	if s.fault != "gives away what it keeps" {
		reply.Record.Result = bytes.Clone(reply.Record.Result)
	}
	return reply
}

func (s *reference) next(r dedup.Record, floor dedup.Token) dedup.Token {
	now := s.now()
	switch s.fault {
	case "tokens of a record":
		if r.Expires.After(now) {
			return dedup.NextToken(r.Token, floor, s.start)
		}
		return dedup.NextToken(0, floor, s.start)
	case "tokens count from one":
		return max(s.saved.High, floor) + 1
	case "no floor":
		floor = 0
	}
	return dedup.NextToken(s.saved.High, floor, now)
}

func (s *reference) see(op dedup.Op, now time.Time) {
	longest := s.saved.TTL
	switch {
	case op.Kind == dedup.OpExtend:
		return
	case s.fault == "TTL of claims alone" && op.Kind != dedup.OpClaim:
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

func (s *reference) vouch() dedup.Vouch {
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

func (s *reference) Vouch(context.Context) (dedup.Vouch, error) {
	if s.fault == "restless vouch" {
		return fresh(s.clock.Now()), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vouch(), nil
}

func (s *reference) Lookup(ctx context.Context, id dedup.ID) (dedup.Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookup(id), ctx.Err()
}

func (s *reference) lookup(id dedup.ID) dedup.Record {
	r := s.saved.Records[id.String()]
	if !r.Expires.After(s.now()) && s.fault != "shows the expired" {
		return dedup.Record{}
	}
	r.Result = bytes.Clone(r.Result)
	return r
}

func (s *reference) Records(ctx context.Context) iter.Seq2[dedup.StoredRecord, error] {
	return func(yield func(dedup.StoredRecord, error) bool) {
		s.mu.Lock()
		var all []dedup.StoredRecord
		for text := range s.saved.Records {
			id, _ := dedup.ParseID(text)
			if r := s.lookup(id); r.State != dedup.StateFree {
				all = append(all, dedup.StoredRecord{ID: id, Record: r})
			}
		}
		if s.fault != "locked while it lists" {
			s.mu.Unlock()
		}
		for _, r := range all {
			if err := ctx.Err(); err != nil {
				yield(dedup.StoredRecord{}, err)
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (s *reference) Stats(ctx context.Context) (dedup.Stats, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := int64(len(s.saved.Records))
	if s.fault == "miscounts" {
		n = 1
	}
	return dedup.Stats{Records: n, Now: s.now(), Token: s.saved.High, Vouch: s.vouch()}, ctx.Err()
}

func (s *reference) Forget(ctx context.Context, ids []dedup.ID) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		if r := s.lookup(id); r.LeaseEnd.After(s.now()) && s.fault != "forgets the living" {
			return fmt.Errorf("reference: %v: %w", id, dedup.ErrBusy)
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
