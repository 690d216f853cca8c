package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// batched turns h into a batch handler.
func (h *handler) batched(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
	out := make([]dedup.Answer, len(ms))
	for i, m := range ms {
		out[i].Result, out[i].Err = h.handle(ctx, m)
	}
	return out
}

func TestBatch(t *testing.T) {
	s := newStore()
	var l letters
	d := newDedup(t, s, &dedup.Options{DeadLetter: l.send})
	want(t, d.Do(t.Context(), message("done", "v"), (&handler{}).handle), dedup.Processed, true)
	s.calls = nil
	cause := errors.New("no")
	h := &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
		switch m.Claim.Key {
		case "fails":
			return nil, cause
		case "poison":
			return nil, dedup.Permanent(cause)
		}
		return []byte("result of " + m.Claim.Key), nil
	}}
	ms := []*dedup.Message{
		message("a", "v"), message("done", "v"), message("fails", "v"), message("a", "v"), message("a", "other"),
		message("poison", "v"), message("", "v"), message("fails", "v"), message("b", "v"),
	}
	rs := d.DoBatch(t.Context(), ms, h.batched)
	for i, c := range []struct {
		outcome dedup.Outcome
		settled bool
	}{
		{dedup.Processed, true}, {dedup.Duplicate, true}, {dedup.Failed, false}, {dedup.Duplicate, true}, {dedup.Conflict, true},
		{dedup.Parked, true}, {dedup.Unkeyed, true}, {dedup.Failed, false}, {dedup.Processed, true},
	} {
		if rs[i].Outcome != c.outcome || rs[i].Settled() != c.settled {
			t.Errorf("message %d: got %v, settled %v (%v), want %v, %v", i, rs[i].Outcome, rs[i].Settled(), rs[i].Err, c.outcome, c.settled)
		}
	}
	if string(rs[3].Value) != "result of a" {
		t.Errorf("got value %q of the duplicate in the batch", rs[3].Value)
	}
	if h.runs() != 4 || len(l.whys) != 3 {
		t.Errorf("got %d runs, %d dead letters; want 4 (a, fails, poison, b) and 3 (poison, no key, conflict)", h.runs(), len(l.whys))
	}
	if len(s.calls) != 4 {
		t.Errorf("got %d Applies, want 4: claims, records, what was parked, and the claim of the other payload", len(s.calls))
	}
}

func TestBatchHandlerMustAnswerEach(t *testing.T) {
	for name, h := range map[string]dedup.BatchHandler{
		"too few": func(_ context.Context, ms []*dedup.Message) []dedup.Answer { return make([]dedup.Answer, len(ms)-1) },
		"panic":   func(context.Context, []*dedup.Message) []dedup.Answer { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDedup(t, newStore(), nil)
			ms := []*dedup.Message{message("a", "v"), message("b", "v")}
			for _, r := range d.DoBatch(t.Context(), ms, h) {
				want(t, r, dedup.Failed, false)
			}
			again := &handler{}
			for _, r := range d.DoBatch(t.Context(), ms, again.batched) {
				want(t, r, dedup.Processed, true)
			}
			if c := again.claim(1); !c.Ambiguous {
				t.Error("want the next claim Ambiguous: the effect may have happened")
			}
		})
	}
}

func TestBatchLargerThanMaxBatch(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	var ms []*dedup.Message
	for i := range 2*driver.MaxBatch + 7 {
		ms = append(ms, message(fmt.Sprint(i), "v"))
	}
	h := &handler{}
	for i, r := range d.DoBatch(t.Context(), ms, h.batched) {
		if r.Outcome != dedup.Processed || r.ID != dedup.NewID("orders", dedup.Key(fmt.Sprint(i))) {
			t.Fatalf("message %d: got %v", i, r.Outcome)
		}
	}
	if got := d.DoBatch(t.Context(), nil, h.batched); len(got) != 0 {
		t.Errorf("got %d results for no messages", len(got))
	}
}

// Two batches that hold each other's keys must not wait for each other.
func TestBatchesWithKeysInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		h := &handler{script: func(int, context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(100 * time.Millisecond)
			return nil, nil
		}}
		done := make(chan []dedup.Result)
		for _, keys := range [][]string{{"a", "x", "b"}, {"b", "y", "a"}} {
			var ms []*dedup.Message
			for _, k := range keys {
				ms = append(ms, message(k, "v"))
			}
			go func() { done <- d.DoBatch(context.Background(), ms, h.batched) }()
		}
		outcomes := map[dedup.Outcome]int{}
		for range 2 {
			for _, r := range <-done {
				outcomes[r.Outcome]++
			}
		}
		if outcomes[dedup.Processed] != 4 || outcomes[dedup.Duplicate] != 2 || h.runs() != 4 {
			t.Errorf("got %v in %d runs, want 4 processed and 2 duplicates", outcomes, h.runs())
		}
	})
}

func TestBatchInterruptedBetweenClaimAndHandler(t *testing.T) {
	s := newStore()
	ctx, cancel := context.WithCancel(t.Context())
	s.after = func(ops []driver.Op, _ []driver.Reply) {
		if ops[0].Kind == driver.OpClaim {
			cancel()
		}
	}
	d := newDedup(t, s, nil)
	h := &handler{}
	for _, r := range d.DoBatch(ctx, []*dedup.Message{message("a", "v"), message("b", "v")}, h.batched) {
		want(t, r, dedup.Unavailable, false)
	}
	rec, err := s.Lookup(t.Context(), dedup.NewID("orders", "a"))
	if err != nil || rec.State != driver.StateReleased || rec.Attempt != 0 || rec.Ambiguous || h.runs() != 0 {
		t.Errorf("got record %+v, err %v, %d runs; want it released, uncounted, not run", rec, err, h.runs())
	}
}

// Under any mix of failures, the effect of a key happens again only in a run
// that was told that it might.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { testRandomFaults(t, seed) })
	}
}

func testRandomFaults(t *testing.T, seed uint64) {
	s := newStore()
	network := rand.New(rand.NewPCG(seed, 1)) // under s.mu
	fates := rand.New(rand.NewPCG(seed, 2))   // under h.mu
	healthy := false
	s.before = func([]driver.Op) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !healthy && network.IntN(10) == 0 {
			return errBroken
		}
		return nil
	}
	s.after = func(_ []driver.Op, replies []driver.Reply) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range replies {
			if !healthy && network.IntN(10) == 0 {
				replies[i] = driver.Reply{Err: errBroken}
			}
		}
	}
	effects := map[dedup.Key]int{}
	running := map[dedup.Key]bool{}
	var h *handler
	h = &handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
		h.mu.Lock()
		if running[m.Claim.Key] {
			t.Errorf("seed %d: two runs at once", seed)
		}
		running[m.Claim.Key] = true
		fate, wait := fates.IntN(8), fates.IntN(3)
		h.mu.Unlock()
		time.Sleep(time.Duration(wait) * time.Second)
		h.mu.Lock()
		defer h.mu.Unlock()
		running[m.Claim.Key] = false
		switch fate {
		case 0:
			return nil, errors.New("before the effect")
		case 1:
			return nil, dedup.Transient(errors.New("before the effect"))
		}
		if effects[m.Claim.Key]++; effects[m.Claim.Key] > 1 && !m.Claim.Ambiguous {
			t.Errorf("seed %d: the effect was repeated unflagged, attempt %d", seed, m.Claim.Attempt)
		}
		switch fate {
		case 2:
			return nil, dedup.MaybeDone(errors.New("after the effect"))
		case 3:
			panic("after the effect")
		}
		return []byte(m.Claim.Key), nil
	}}
	members := []*dedup.Deduplicator{
		newDedup(t, s, &dedup.Options{Lease: 2 * time.Second, Concurrency: 8}),
		newDedup(t, s, &dedup.Options{Lease: 2 * time.Second, Concurrency: 8}),
	}
	const keys = 20
	done := make(chan struct{})
	for worker := range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			d := members[worker%2]
			for i := range keys {
				key := fmt.Sprint((i*7 + worker*3) % keys)
				if worker < 4 {
					d.DoBatch(context.Background(), []*dedup.Message{message(key, "v"), message(fmt.Sprint(i), "v")}, h.batched)
				} else if _, err := d.Settle(context.Background(), message(key, "v"), h.handle); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
		}()
	}
	for range 8 {
		<-done
	}
	s.mu.Lock()
	healthy = true
	s.mu.Unlock()
	for i := range keys {
		r, err := members[0].Settle(t.Context(), message(fmt.Sprint(i), "v"), h.handle)
		if err != nil || r.Outcome != dedup.Duplicate || string(r.Value) != fmt.Sprint(i) {
			t.Errorf("seed %d: key %d: got %v, %q, %v", seed, i, r.Outcome, r.Value, err)
		}
	}
}
