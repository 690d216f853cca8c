package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// pipelined is a store that takes several Applies at once, each of which takes 10 ms.
type pipelined struct {
	*faulty
	limit, least int

	mu        sync.Mutex
	now, most int
}

func newPipelined(limit, least int) *pipelined {
	return &pipelined{faulty: newStore(), limit: limit, least: least}
}

func (p *pipelined) Applies() (limit, least int) { return p.limit, p.least }

func (p *pipelined) Apply(ctx context.Context, ops []dedup.Op) ([]dedup.Reply, error) {
	p.count(1)
	defer p.count(-1)
	time.Sleep(10 * time.Millisecond)
	return p.faulty.Apply(ctx, ops)
}

func (p *pipelined) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now += n
	p.most = max(p.most, p.now)
}

// Another Apply begins beside those under way when enough waits for it, and no more
// than the store takes.
func TestPipelined(t *testing.T) {
	for _, tt := range []struct {
		limit, least     int
		callers, batch   int
		most, leastCalls int
		mostCalls        int
	}{
		{limit: 2, least: 100, callers: 2, batch: 99, most: 1, leastCalls: 20, mostCalls: 45},
		{limit: 2, least: 100, callers: 2, batch: 100, most: 2, leastCalls: 40, mostCalls: 40},
		{limit: 2, least: 100, callers: 6, batch: 50, most: 2, leastCalls: 20, mostCalls: 80},
		{limit: 2, least: 100, callers: 200, batch: 1, most: 2, leastCalls: 20, mostCalls: 80},
		{limit: 3, least: 0, callers: 6, batch: 1, most: 3, leastCalls: 40, mostCalls: 120},
		{limit: 1, least: 0, callers: 3, batch: 50, most: 1, leastCalls: 20, mostCalls: 60},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newPipelined(tt.limit, tt.least)
				d := newDedup(t, s, &dedup.Options{Concurrency: tt.callers})
				var wg sync.WaitGroup
				for caller := range tt.callers {
					wg.Go(func() {
						for round := range 10 {
							ms := make([]*dedup.Message, tt.batch)
							for i := range ms {
								ms[i] = message(fmt.Sprint(caller, "-", round, "-", i), "v")
							}
							for _, r := range d.DoBatch(t.Context(), ms, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
								return make([]dedup.Answer, len(ms))
							}) {
								want(t, r, dedup.Processed, true)
							}
						}
					})
				}
				wg.Wait()
				if s.most != tt.most {
					t.Errorf("got %d Applies at once, want %d", s.most, tt.most)
				}
				if n := len(s.calls); n < tt.leastCalls || n > tt.mostCalls {
					t.Errorf("got %d Applies, want %d to %d", n, tt.leastCalls, tt.mostCalls)
				}
			})
		})
	}
}

// What too few wait with is carried out when none is under way any more, whichever
// of several ends last, also after callers have gone.
func TestPipelinedLeavesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newPipelined(2, 100)
		d := newDedup(t, s, nil)
		batch := func(start time.Duration, key string, n int) func() {
			return func() {
				time.Sleep(start)
				ms := make([]*dedup.Message, n)
				for i := range ms {
					ms[i] = message(fmt.Sprint(key, i), "v")
				}
				for _, r := range d.DoBatch(t.Context(), ms, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
					return make([]dedup.Answer, len(ms))
				}) {
					want(t, r, dedup.Processed, true)
				}
			}
		}
		var wg sync.WaitGroup
		for round := range 20 {
			name := fmt.Sprint(round, "-")
			wg.Go(batch(0, name+"a", 120))
			wg.Go(batch(time.Millisecond, name+"b", 120))
			wg.Go(batch(2*time.Millisecond, name+"c", 1))
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round)*time.Millisecond)
				defer cancel()
				time.Sleep(2 * time.Millisecond)
				d.Do(ctx, message(name+"gone", "v"), func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
			})
			wg.Wait()
		}
		if s.most != 2 {
			t.Errorf("got %d Applies at once, want 2", s.most)
		}
	})
}
