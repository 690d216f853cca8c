package boltstore

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Many callers at once, on few keys with few hashes, while files come and go: a key
// has one holder at a time, and what was recorded stays.
func TestManyCallers(t *testing.T) {
	const (
		workers = 6
		rounds  = 150
		keys    = 400
	)
	b := newBench(t, Options{RollBytes: minRollBytes})
	b.Store.hash = func(id driver.ID) uint64 { return hashID(id) % 97 }
	b.hash = b.Store.hash
	var (
		holders [keys]atomic.Int32
		done    [keys]atomic.Bool // its record was asked for
		tokens  sync.Map
		wg      sync.WaitGroup
	)
	for w := range workers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				var ops []driver.Op
				var at []int
				for _, k := range r.Perm(keys)[:1+r.IntN(40)] {
					ops, at = append(ops, claim1(key("k", k), r.Uint64())), append(at, k)
				}
				var ends []driver.Op
				for i, reply := range b.apply(ops...) {
					k := at[i]
					switch reply.Status {
					case driver.StatusGranted:
						if n := holders[k].Add(1); n != 1 {
							t.Errorf("key %d: %d holders", k, n)
						}
						if _, twice := tokens.LoadOrStore(reply.Record.Token, k); twice {
							t.Errorf("key %d: token %d was granted before", k, reply.Record.Token)
						}
						if r.IntN(4) == 0 {
							done[k].Store(true)
							ends = append(ends, complete1(ops[i].ID, reply.Record.Token, day))
						} else {
							ends = append(ends, release1(ops[i].ID, reply.Record.Token))
						}
						holders[k].Add(-1)
					case driver.StatusDone:
						if !done[k].Load() {
							t.Errorf("key %d: done, and nobody recorded it", k)
						}
					case driver.StatusHeld:
					default:
						t.Errorf("key %d: got %v", k, reply.Status)
					}
				}
				if len(ends) == 0 {
					continue
				}
				for i, reply := range b.apply(ends...) {
					if reply.Status != driver.StatusOK {
						t.Errorf("%v: got %v, want OK", ends[i].Kind, reply.Status)
					}
				}
			}
		})
	}
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		default:
			b.nextFile()
			b.tend()
		}
	}
	check := func() {
		for k := range keys {
			if done[k].Load() {
				b.lookup(key("k", k), driver.StateDone)
			}
		}
	}
	check()
	b.crash()
	check()
}
