package boltstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// The load under which a store is killed, or loses its disk. It works on groups of
// keys: claims one, settles it, and forgets it again, while around them short-lived
// keys fill the files, which roll and are dropped all the time. Time passes with the
// groups, so files roll and expire after so much load, however fast the machine is.

const (
	workers   = 4
	groupSize = 8
	around    = 200 // short-lived keys to a group
	groupTime = 10 * time.Millisecond
)

// crashOptions make files roll and be dropped all the time, on a clock that stands
// still but for the load.
func crashOptions() (*Options, *testClock) {
	clock := &testClock{now: time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)}
	return &Options{RollBytes: 256 << 10, RollAge: 4 * groupTime, Now: clock.Now}, clock
}

// group names a group: the n-th of a worker in a run of the load.
type group struct{ run, worker, n int }

func (g group) id(i int) driver.ID {
	return dedup.NewID("load", dedup.Key(fmt.Sprint(g.run, " ", g.worker, " ", g.n, " ", i)))
}

// fate is the op that settles the i-th key of a group; 0: it stays claimed.
func fate(i int) driver.OpKind {
	switch i {
	case 4:
		return driver.OpPark
	case 5, 6:
		return driver.OpRelease
	case 7:
		return 0
	}
	return driver.OpComplete
}

func resultOf(token driver.Token) []byte { return fmt.Append(nil, "result of ", token) }

// phase is how far the store has acknowledged a group.
type phase int

const (
	claimed phase = iota + 1
	settled
	forgetting // not acknowledged: it may have happened from here on
	forgotten
)

// fact is what a worker says of a group. The tokens are those of its keys, and
// then others that were issued.
type fact struct {
	group
	phase  phase
	tokens []driver.Token
}

// load works on s, whose clock it moves, until something fails, and tells the facts:
// each as soon as it is one, and those of a group in order. tell may be called by many
// at once, and ends the load by an error.
func load(s *Store, clock *testClock, run int, tell func(fact) error) error {
	ctx, stop := context.WithCancelCause(context.Background())
	var running sync.WaitGroup
	tend := make(chan struct{})
	for w := range workers {
		running.Go(func() {
			stop(work(ctx, s, group{run: run, worker: w}, func(f fact) error {
				if f.phase == settled {
					clock.advance(groupTime)
					select {
					case tend <- struct{}{}: // it keeps pace
					case <-ctx.Done():
					}
				}
				return tell(f)
			}))
		})
	}
	running.Go(func() {
		for {
			select {
			case <-tend:
			case <-ctx.Done():
				return
			}
			if err := s.tend(); err != nil {
				stop(err)
			}
		}
	})
	running.Wait()
	return context.Cause(ctx)
}

// work is one worker. It forgets a group two groups later, and leaves every eighth.
func work(ctx context.Context, s *Store, g group, tell func(fact) error) error {
	for ; ; g.n++ {
		tokens, err := claimGroup(ctx, s, g)
		if err == nil {
			err = tell(fact{g, claimed, tokens})
		}
		if err == nil {
			err = settleGroup(ctx, s, g, tokens)
		}
		if err == nil {
			err = tell(fact{g, settled, tokens[:groupSize]})
		}
		if old := g; err == nil && g.n >= 2 && g.n%8 != 2 {
			old.n -= 2
			err = tell(fact{old, forgetting, nil})
			if err == nil {
				err = s.Forget(ctx, old.ids())
			}
			if err == nil {
				err = tell(fact{old, forgotten, nil})
			}
		}
		if err != nil {
			return err
		}
	}
}

// ids are those of the group that are settled.
func (g group) ids() (ids []driver.ID) {
	for i := range groupSize {
		if fate(i) != 0 {
			ids = append(ids, g.id(i))
		}
	}
	return ids
}

func claimGroup(ctx context.Context, s *Store, g group) (tokens []driver.Token, err error) {
	var ops []driver.Op
	for i := range groupSize {
		ops = append(ops, driver.Op{Kind: driver.OpClaim, ID: g.id(i), Nonce: 1, Lease: time.Minute, TTL: time.Hour, Position: position})
	}
	for i := range around {
		ops = append(ops, driver.Op{Kind: driver.OpClaim, ID: g.id(groupSize + i), Nonce: 1, Lease: groupTime, TTL: groupTime})
	}
	replies, err := applyAll(ctx, s, ops, driver.StatusGranted)
	if err != nil {
		return nil, err
	}
	for _, r := range replies[:groupSize] {
		tokens = append(tokens, r.Record.Token)
	}
	return append(tokens, replies[len(replies)-1].Record.Token), nil
}

func settleGroup(ctx context.Context, s *Store, g group, tokens []driver.Token) error {
	var ops []driver.Op
	for i := range groupSize {
		if kind := fate(i); kind != 0 {
			ops = append(ops, settleOp(kind, g.id(i), tokens[i]))
		}
	}
	_, err := applyAll(ctx, s, ops, driver.StatusOK)
	return err
}

func settleOp(kind driver.OpKind, id driver.ID, token driver.Token) driver.Op {
	op := driver.Op{Kind: kind, ID: id, Token: token, TTL: time.Hour}
	if kind != driver.OpRelease {
		op.Result = resultOf(token)
	}
	return op
}

// applyAll wants the status from every op.
func applyAll(ctx context.Context, s *Store, ops []driver.Op, want driver.Status) ([]driver.Reply, error) {
	replies, err := s.Apply(ctx, ops)
	for i, r := range replies {
		if r.Err == nil && r.Status != want {
			r.Err = fmt.Errorf("%w: got %v, want %v (record %+v)", errAnswer, r.Status, want, r.Record)
		}
		if err == nil && r.Err != nil {
			err = fmt.Errorf("%v: %w", ops[i].Kind, r.Err)
		}
	}
	return replies, err
}

// errAnswer marks what no crash explains.
var errAnswer = errors.New("wrong answer")
