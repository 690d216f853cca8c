package storetest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Linearizable lets 64 goroutines work on a few keys at once and records the answers. It fails if
// there is no order in which the operations of a key, one after the other, would have had these
// answers. So each operation must take effect at one moment between its call and its return.
func Linearizable(t *testing.T, open func(t *testing.T, clock Clock) driver.Store) {
	const (
		workers = 64
		rounds  = 3 // the time stands still in a round, and leases end between two
		batches = 4
		keys    = 64

		// If there is an order, it is found in milliseconds. The proof that there is none can
		// take for ever.
		patience = 2 * time.Minute
	)
	s := newSuite(t, open)
	ids := make([]driver.ID, keys)
	for i := range ids {
		ids[i] = s.id()
	}
	var (
		sequence atomic.Int64 // tells which call came after which return
		mu       sync.Mutex
		history  []porcupine.Operation
		failed   error
	)
	all := make([]*worker, workers)
	for i := range all {
		all[i] = &worker{rand: rand.New(rand.NewPCG(1, uint64(i))), ids: ids, nonce: uint64(i+1) << 32, tokens: make(map[driver.ID]driver.Token)}
	}
	for range rounds {
		now := s.now()
		var running sync.WaitGroup
		for i, w := range all {
			running.Go(func() {
				for range batches {
					ops := w.batch()
					call := sequence.Add(1)
					replies, err := apply(t, s.store, ops)
					end := sequence.Add(1)
					mu.Lock()
					if err != nil {
						failed = err
						mu.Unlock()
						return
					}
					for j, op := range ops {
						history = append(history, porcupine.Operation{
							ClientId: i, Input: input{op, now}, Output: replies[j], Call: call, Return: end,
						})
					}
					mu.Unlock()
					w.learn(ops, replies)
				}
			})
		}
		running.Wait()
		if failed != nil {
			t.Fatal(failed)
		}
		s.advance(lease)
	}
	for _, part := range linear.Partition(history) {
		switch porcupine.CheckOperationsTimeout(linear, part, patience) {
		case porcupine.Ok:
		case porcupine.Unknown:
			t.Fatalf("%d operations on one key: no verdict within %v", len(part), patience)
		default:
			t.Fatalf("%d operations on one key: no order explains the replies; by call:\n%s", len(part), describe(part))
		}
	}
}

// worker draws the batches of one goroutine.
type worker struct {
	rand   *rand.Rand
	ids    []driver.ID
	nonce  uint64
	tokens map[driver.ID]driver.Token // of its grants
}

// batch returns operations on different keys. Operations of one batch on one key would have an
// order, which the history of calls and returns cannot express.
func (w *worker) batch() []driver.Op {
	var ops []driver.Op
	for _, k := range w.rand.Perm(len(w.ids))[:4] {
		id := w.ids[k]
		token, granted := w.tokens[id]
		if !granted {
			if w.rand.IntN(3) > 0 { // else a repeat of the last claim
				w.nonce++
			}
			if w.rand.IntN(8) == 0 {
				ops = append(ops, unpark(id))
				continue
			}
			ops = append(ops, claim(id, w.nonce))
			continue
		}
		switch n := w.rand.IntN(20); {
		case n < 4:
			ops = append(ops, extend(id, token))
		case n < 5:
			ops = append(ops, complete(id, token, fmt.Sprint("result ", token)))
		case n < 6:
			ops = append(ops, park(id, token, fmt.Sprint("reason ", token)))
		case n < 7:
			ops = append(ops, unpark(id))
		case n < 8:
			ops = append(ops, noted(extend(id, token), fmt.Sprint("note ", token)))
		default:
			op := release(id, token)
			op.Uncounted = w.rand.IntN(2) == 0
			ops = append(ops, op)
		}
	}
	return ops
}

func (w *worker) learn(ops []driver.Op, replies []driver.Reply) {
	for i, op := range ops {
		switch {
		case replies[i].Status == driver.StatusGranted:
			w.tokens[op.ID] = replies[i].Record.Token
		case op.Kind == driver.OpRelease && w.rand.IntN(4) > 0: // else it speaks for the old claim again
			delete(w.tokens, op.ID)
		}
	}
}

type input struct {
	op  driver.Op
	now time.Time
}

// keyState is the state of one key: its record, and the greatest token it had.
type keyState struct {
	record  driver.Record
	highest driver.Token
}

// linear is Step as the sequential model of one key.
var linear = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[driver.ID][]porcupine.Operation)
		for _, o := range history {
			id := o.Input.(input).op.ID
			byKey[id] = append(byKey[id], o)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return keyState{} },
	Step: func(state, in, out any) (bool, any) {
		s, i := state.(keyState), in.(input)
		record, err := follow(s.record, i.op, i.now, s.highest, out.(driver.Reply))
		if err != nil {
			return false, state
		}
		return true, keyState{record, max(s.highest, record.Token)}
	},
	Equal: func(a, b any) bool {
		x, y := a.(keyState), b.(keyState)
		return x.highest == y.highest && reflect.DeepEqual(x.record, y.record)
	},
	// The token, the state and the attempts tell most states apart.
	Hash: func(state any) uint64 {
		s := state.(keyState)
		return uint64(s.highest)<<20 ^ uint64(s.record.Token)<<10 ^ uint64(s.record.State)<<5 ^ uint64(s.record.Attempt)
	},
}

func describe(part []porcupine.Operation) (text string) {
	for _, o := range part {
		op, reply := o.Input.(input).op, o.Output.(driver.Reply)
		text += fmt.Sprintf("%d-%d worker %d: %v nonce %x token %d: %v, token %d\n",
			o.Call, o.Return, o.ClientId, op.Kind, op.Nonce, op.Token, reply.Status, reply.Record.Token)
	}
	return text
}
