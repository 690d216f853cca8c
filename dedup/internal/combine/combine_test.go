package combine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// slow is a store that grants every claim, in 10 ms.
type slow struct {
	mu      sync.Mutex
	batches [][]driver.Op
	back    int // replies that came back
}

func (s *slow) apply(ops []driver.Op, a *Applied) {
	a.At, a.Own = time.Now(), true
	time.Sleep(10 * time.Millisecond)
	a.Took = time.Since(a.At)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, slices.Clone(ops))
	a.Replies = make([]driver.Reply, len(ops))
	for i, op := range ops {
		a.Replies[i] = driver.Reply{Status: driver.StatusGranted, Record: driver.Record{Token: driver.Token(op.Nonce)}}
	}
}

func (s *slow) recycle(replies []driver.Reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back += len(replies)
}

func combiner(t *testing.T, limit int) (*Combiner, *slow) {
	c, s := new(Combiner), new(slow)
	c.Init(t.Context(), limit, s.apply, s.recycle)
	return c, s
}

func claim(nonce int) []driver.Op {
	return []driver.Op{{Kind: driver.OpClaim, Nonce: uint64(nonce), TTL: time.Hour}}
}

// Callers that come while an Apply is under way share the next one, and each gets its
// own replies.
func TestCallersShareAnApply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := combiner(t, 1)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				a, err := c.Do(t.Context(), claim(i))
				if err != nil || len(a.Replies) != 1 || a.Replies[0].Record.Token != driver.Token(i) {
					t.Errorf("caller %d: got %v, %v", i, a.Replies, err)
				}
				a.Done()
			})
		}
		wg.Wait()
		if len(s.batches) != 2 || s.back != 100 {
			t.Errorf("got %d batches, %d replies given back; want 2 and all 100", len(s.batches), s.back)
		}
	})
}

// A batch has at most MaxBatch operations, and those of one caller stay together.
func TestBatchesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := combiner(t, 1)
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				a, err := c.Do(t.Context(), make([]driver.Op, driver.MaxBatch/2))
				if err != nil {
					t.Error(err)
				}
				a.Done()
			})
		}
		wg.Wait()
		for i, batch := range s.batches {
			if n := len(batch); n > driver.MaxBatch || n%(driver.MaxBatch/2) != 0 {
				t.Errorf("batch %d: got %d operations, want whole callers and at most %d", i, n, driver.MaxBatch)
			}
		}
	})
}

// A caller that leaves the queue sends nothing. One that leaves during the Apply has its
// claim released, uncounted.
func TestCallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := combiner(t, 1)
		cause := errors.New("enough")
		start := func(nonce int) (context.CancelCauseFunc, chan error) {
			ctx, cancel := context.WithCancelCause(t.Context())
			out := make(chan error, 1)
			go func() {
				a, err := c.Do(ctx, claim(nonce))
				a.Done()
				out <- err
			}()
			synctest.Wait()
			return cancel, out
		}
		_, leads := start(1)
		leaveQueue, queued := start(2)
		leaveQueue(cause)
		if err := <-queued; !errors.Is(err, cause) {
			t.Errorf("out of the queue: got %v, want the cause", err)
		}
		_, next := start(3)
		leaveApply, sent := start(4)
		if err := <-leads; err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Millisecond) // the leader has waited for company, and is in its Apply
		leaveApply(cause)
		if err := <-sent; !errors.Is(err, cause) {
			t.Errorf("out of an Apply: got %v, want the cause", err)
		}
		if err := <-next; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		var all []driver.Op
		for _, batch := range s.batches {
			all = append(all, batch...)
		}
		if len(all) != 4 || slices.ContainsFunc(all, func(op driver.Op) bool { return op.Nonce == 2 }) {
			t.Errorf("got %+v, want 3 claims and the release of the last", all)
		}
		if last := all[len(all)-1]; last.Kind != driver.OpRelease || last.Token != 4 || !last.Uncounted {
			t.Errorf("got %+v at the end, want an uncounted release of token 4", last)
		}
	})
}

// A store that takes several calls gets them at the same time.
func TestSeveralAppliesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := combiner(t, 4)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				a, _ := c.Do(t.Context(), claim(i))
				a.Done()
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 10*time.Millisecond || len(s.batches) != 4 {
			t.Errorf("got %d Applies in %v, want 4 in the time of one", len(s.batches), took)
		}
	})
}
