package boltstore

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup"
)

// patience is how long a test waits for what is bound to come.
const patience = 2 * time.Minute

// turns is a store whose writes wait to be let go, and that tells which keys are
// looked up.
type turns struct {
	*bench
	looked sync.Map // dedup.ID -> it was, once
	begun  chan struct{}
	let    chan error // what each write is to return; nil: it is carried out
	free   func()     // nothing waits any more
}

func newTurns(t *testing.T, o Options) *turns {
	s := &turns{begun: make(chan struct{}, 16), let: make(chan error)}
	s.bench = newBench(t, o)
	s.hash = func(id dedup.ID) uint64 {
		s.looked.Store(id, true)
		return hashID(id)
	}
	s.Store.hash = s.hash
	s.commit = func(tx *bolt.Tx) error {
		s.begun <- struct{}{}
		if err := <-s.let; err != nil {
			return errors.Join(err, tx.Rollback())
		}
		return tx.Commit()
	}
	s.tender.Lock() // it would wait with the turn
	s.free = sync.OnceFunc(func() {
		s.commit = (*bolt.Tx).Commit
		s.tender.Unlock()
	})
	t.Cleanup(s.free)
	return s
}

// answers are those of an Apply.
type answers struct {
	replies []dedup.Reply
	err     error
}

// start has an Apply under way, and waits until its keys have been looked up.
func (s *turns) start(ops ...dedup.Op) <-chan answers {
	s.t.Helper()
	done := make(chan answers, 1)
	go func() {
		replies, err := s.Apply(s.t.Context(), ops)
		done <- answers{replies, err}
	}()
	s.await("its keys were not looked up", func() bool {
		_, ok := s.looked.Load(ops[len(ops)-1].ID)
		return ok
	})
	return done
}

func (s *turns) await(what string, until func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !until(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal(what)
		}
	}
}

// write waits for a write to begin and has it end.
func (s *turns) write(err error) {
	<-s.begun
	s.let <- err
}

// granted returns the tokens of an Apply that was granted all its claims.
func (s *turns) granted(done <-chan answers) (tokens []dedup.Token) {
	s.t.Helper()
	a := <-done
	if a.err != nil {
		s.t.Fatalf("Apply: %v", a.err)
	}
	for i, r := range a.replies {
		if r.Err != nil || r.Status != dedup.StatusGranted {
			s.t.Fatalf("claim %d: got %v, %v, want granted", i, r.Status, r.Err)
		}
		tokens = append(tokens, r.Record.Token)
	}
	return tokens
}

// A batch is made while the one before it is written, and goes on from its tokens.
func TestBatchIsMadeWhileAnotherIsWritten(t *testing.T) {
	s := newTurns(t, Options{})
	first := s.start(claim1(key("a", 0), 1), claim1(key("a", 1), 1))
	<-s.begun
	second := s.start(claim1(key("b", 0), 2))
	select {
	case a := <-first:
		t.Fatalf("the first was answered before it was written: %+v", a)
	case a := <-second:
		t.Fatalf("the second was answered before it was written: %+v", a)
	default:
	}
	s.lookup(key("a", 0), dedup.StateFree)
	s.let <- nil
	s.write(nil)
	tokens := append(s.granted(first), s.granted(second)...)
	if !slices.IsSorted(tokens) || len(slices.Compact(tokens)) != 3 {
		t.Errorf("tokens: got %v, want each greater than the one before", tokens)
	}
	for _, id := range []dedup.ID{key("a", 0), key("a", 1), key("b", 0)} {
		s.lookup(id, dedup.StateClaimed)
	}
}

// What a batch says of a key that is being written waits for what comes of that.
func TestBatchWaitsForItsKeys(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status dedup.Status
	}{
		{"written", nil, dedup.StatusHeld},
		{"not written", &fs.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}, dedup.StatusGranted},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTurns(t, Options{})
			k := key("k", 0)
			first := s.start(claim1(key("a", 0), 1), claim1(k, 1))
			<-s.begun
			second := s.start(claim1(k, 2), claim1(key("b", 0), 2))
			s.let <- tt.err
			s.write(nil)
			if a := <-first; (a.err == nil) != (tt.err == nil) || tt.err != nil && !errors.Is(a.err, ErrFull) {
				t.Errorf("first: got %v, with a write that ends in %v", a.err, tt.err)
			}
			a := <-second
			if a.err != nil || a.replies[0].Status != tt.status || a.replies[1].Status != dedup.StatusGranted {
				t.Errorf("second: got %+v, want %v and granted", a, tt.status)
			}
		})
	}
}

// A batch that is not written for want of room leaves the next one as it is.
func TestBatchAfterOneWithoutRoom(t *testing.T) {
	s := newTurns(t, Options{})
	first := s.start(claim1(key("a", 0), 1))
	<-s.begun
	second := s.start(claim1(key("b", 0), 2))
	s.let <- &fs.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC}
	if a := <-first; !errors.Is(a.err, ErrFull) {
		t.Errorf("first: got %v, want ErrFull", a.err)
	}
	s.write(nil)
	tokens := s.granted(second)
	again := s.start(claim1(key("a", 0), 3))
	s.write(nil)
	if later := s.granted(again); later[0] <= tokens[0] {
		t.Errorf("tokens: got %d after %d", later[0], tokens[0])
	}
	s.free()
	s.crash()
	s.lookup(key("a", 0), dedup.StateClaimed)
	s.lookup(key("b", 0), dedup.StateClaimed)
}

// Nothing is written after a write that failed, by the batch that waits for it either.
func TestBatchAfterAPoisonedOne(t *testing.T) {
	s := newTurns(t, Options{})
	first := s.start(claim1(key("a", 0), 1))
	<-s.begun
	second := s.start(claim1(key("b", 0), 2))
	s.let <- errDisk
	if a := <-first; a.err != nil || !errors.Is(a.replies[0].Err, ErrPoisoned) {
		t.Errorf("first: got %+v, want ErrPoisoned of its op", a)
	}
	if a := <-second; !errors.Is(a.err, ErrPoisoned) {
		t.Errorf("second: got %+v, want ErrPoisoned: nothing was attempted", a)
	}
}

// Who waits for another batch to be written gives up when its context ends.
func TestBatchGivesUp(t *testing.T) {
	s := newTurns(t, Options{})
	first := s.start(claim1(key("a", 0), 1))
	<-s.begun
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 3 { // one has been made and waits to be written, the others to be made
		wg.Go(func() {
			if replies, err := s.Apply(ctx, []dedup.Op{claim1(key("b", i), 2)}); !errors.Is(err, context.Canceled) {
				t.Errorf("Apply: got %v, %v, want canceled", replies, err)
			}
		})
	}
	wg.Go(func() {
		if err := s.Forget(ctx, []dedup.ID{key("c", 0)}); !errors.Is(err, context.Canceled) {
			t.Errorf("Forget: got %v, want canceled", err)
		}
	})
	s.await("none was made", func() bool { return len(s.turn) == 0 })
	cancel()
	wg.Wait()
	s.let <- nil
	s.granted(first)
	last := s.start(claim1(key("b", 0), 3))
	s.write(nil)
	s.granted(last)
}

// A batch counts on from a longer TTL of the one before it.
func TestHorizonOfABatchThatIsBeingWritten(t *testing.T) {
	with := func(op dedup.Op, ttl time.Duration) dedup.Op {
		op.TTL = ttl
		return op
	}
	ops := []dedup.Op{
		with(claim1(key("a", 0), 1), day), with(claim1(key("a", 1), 1), 3*day), with(claim1(key("a", 2), 1), 2*day),
	}
	one := newBench(t, Options{})
	two := newTurns(t, Options{})
	for range 3 { // what the horizon was before counts
		one.clock.advance(2 * day)
		two.clock.advance(2 * day)
		for _, op := range ops {
			one.apply(op)
		}
		var all []<-chan answers
		for i, op := range ops {
			two.looked.Delete(op.ID)
			if i == 2 {
				two.write(nil)
				<-two.begun
			}
			all = append(all, two.start(op))
		}
		two.let <- nil
		two.write(nil)
		for _, done := range all {
			if a := <-done; a.err != nil {
				t.Fatal(a.err)
			}
		}
		if one.memory != two.memory {
			t.Errorf("horizon: got %+v, want %+v, as one after the other", two.memory, one.memory)
		}
	}
}

// What a batch says of the time is right however long it waited to be written.
func TestClockOfABatchThatWaited(t *testing.T) {
	up := uptime{[16]byte{1}, time.Hour}
	s := newTurns(t, Options{uptime: func() uptime { return up }})
	first := s.start(claim1(key("a", 0), 1))
	<-s.begun
	longer := claim1(key("b", 0), 2)
	longer.TTL *= 2 // so it writes the state
	second := s.start(longer)
	s.bench.clock.advance(time.Minute)
	up.passed += time.Minute
	s.let <- nil
	s.write(nil)
	s.granted(first)
	s.granted(second)
	s.free()
	want := s.Store.clock.now()
	s.crash()
	if got := s.Store.clock.now(); !got.Equal(want) {
		t.Errorf("store time after a crash: got %v, want %v", got, want)
	}
}

// Many batches at once, on few keys with few hashes, while files come and go: a key
// has one holder at a time, and what was recorded stays.
func TestBatchesSideBySide(t *testing.T) {
	const (
		workers = 6
		rounds  = 150
		keys    = 400
	)
	b := newBench(t, Options{RollBytes: minRollBytes})
	b.Store.hash = func(id dedup.ID) uint64 { return hashID(id) % 97 }
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
				var ops []dedup.Op
				var at []int
				for _, k := range r.Perm(keys)[:1+r.IntN(40)] {
					ops, at = append(ops, claim1(key("k", k), r.Uint64())), append(at, k)
				}
				var ends []dedup.Op
				for i, reply := range b.apply(ops...) {
					k := at[i]
					switch reply.Status {
					case dedup.StatusGranted:
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
					case dedup.StatusDone:
						if !done[k].Load() {
							t.Errorf("key %d: done, and nobody recorded it", k)
						}
					case dedup.StatusHeld:
					default:
						t.Errorf("key %d: got %v", k, reply.Status)
					}
				}
				if len(ends) == 0 {
					continue
				}
				for i, reply := range b.apply(ends...) {
					if reply.Status != dedup.StatusOK {
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
				b.lookup(key("k", k), dedup.StateDone)
			}
		}
	}
	check()
	b.crash()
	check()
}
