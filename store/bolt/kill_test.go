package boltstore

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

// workerDir is the environment variable that makes this test binary a worker on
// a store, to be killed.
const (
	workerDir = "BOLTSTORE_TEST_WORKER"
	workerRun = "BOLTSTORE_TEST_RUN" // tells its keys from those of other runs
)

const (
	kills   = 30
	workers = 4
)

// killOptions make files roll and be dropped all the time.
func killOptions() *Options {
	return &Options{RollBytes: 128 << 10, RollAge: 20 * time.Millisecond}
}

// ack is an answer that a worker got: from then on the store must know it.
type ack struct {
	kind   dedup.OpKind
	worker int
	n      int // of the worker's keys
	token  dedup.Token
}

func (a ack) key(run int) dedup.ID {
	return dedup.NewID(fmt.Sprint("run ", run, " worker ", a.worker), dedup.Key(fmt.Sprint(a.n)))
}

func (a ack) result() string { return fmt.Sprint("result of ", a.token) }

// TestKill kills a process under load, time and again, and wants all that it was
// answered to be there afterwards.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	known := make(map[dedup.ID]ack)
	forgotten := make(map[dedup.ID]bool)
	var high dedup.Token
	acks, orphans := 0, 0
	for run := range kills {
		for _, a := range killed(t, dir, run) {
			acks++
			high = max(high, a.token)
			if a.kind != 0 { // else it is the token of some other key
				known[a.key(run)] = a
			}
		}
		s, err := Open(dir, killOptions())
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if s.high < high {
			t.Errorf("run %d: the store's highest token is %d, and %d was issued", run, s.high, high)
		}
		for id := range forgotten {
			if r, err := s.Lookup(t.Context(), id); err != nil || r.State != dedup.StateFree {
				t.Errorf("run %d: a forgotten key: got %+v, %v, want no record", run, r, err)
			}
		}
		var claims, completes []dedup.Op
		var settled []dedup.ID
		var attempts []int
		for id, a := range known {
			r, err := s.Lookup(t.Context(), id)
			if err != nil {
				t.Fatalf("run %d: %v", run, err)
			}
			if err := a.check(r); err != nil {
				t.Errorf("run %d: acknowledged %v under token %d, found %+v: %v", run, a.kind, a.token, r, err)
			}
			if r.State == dedup.StateClaimed {
				claims = append(claims, dedup.Op{Kind: dedup.OpClaim, ID: id, Nonce: 99, Lease: time.Minute, TTL: time.Hour})
				attempts = append(attempts, r.Attempt)
			} else {
				settled = append(settled, id)
			}
		}
		orphans += len(claims)
		issued := high
		for i, reply := range mustApply(t, s, claims) {
			r := reply.Record
			if reply.Status != dedup.StatusGranted || !r.Ambiguous || r.Attempt != attempts[i]+1 || r.Token <= issued {
				t.Errorf("run %d: claim of an orphan: got %v, %+v, want granted, Ambiguous, Attempt %d, a token above %d",
					run, reply.Status, r, attempts[i]+1, issued)
			}
			high = max(high, r.Token)
			a := ack{kind: dedup.OpComplete, token: r.Token}
			known[claims[i].ID] = a
			completes = append(completes, dedup.Op{Kind: a.kind, ID: claims[i].ID, Token: a.token, TTL: time.Hour, Result: []byte(a.result())})
		}
		mustApply(t, s, completes)
		// Few must last, or files are kept for their sake.
		if err := s.Forget(t.Context(), settled); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		for _, id := range settled {
			delete(known, id)
			forgotten[id] = true
		}
		closeStore(t, s)
	}
	numbers, _, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kills, %d acknowledgements, %d forgotten keys, %d orphans, files %d to %d",
		kills, acks, len(forgotten), orphans, numbers[0], numbers[len(numbers)-1])
	if acks < 10*kills || orphans < kills || numbers[0] < kills/2 {
		t.Errorf("this was no load: want thousands of acknowledgements, orphans from each run, and files dropped")
	}
}

func mustApply(t *testing.T, s *Store, ops []dedup.Op) []dedup.Reply {
	t.Helper()
	replies, err := s.Apply(t.Context(), ops)
	for i := range replies {
		err = errors.Join(err, replies[i].Err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return replies
}

// check says whether r can be the record of a key of which a was the last
// acknowledgement: the worker's next op may have happened.
func (a ack) check(r dedup.Record) error {
	if r.Token < a.token {
		return errors.New("its token fell")
	}
	newer := r.Token > a.token
	switch a.kind {
	case dedup.OpComplete, dedup.OpPark:
		want := dedup.StateDone
		if a.kind == dedup.OpPark {
			want = dedup.StateParked
		}
		if r.State != want || newer || string(r.Result) != a.result() {
			return fmt.Errorf("want state %v with %q", want, a.result())
		}
	case dedup.OpClaim:
		if newer || r.State == dedup.StateFree {
			return errors.New("want the claim, or what its holder did to it")
		}
	case dedup.OpRelease:
		if newer != (r.State == dedup.StateClaimed) || r.State == dedup.StateFree || r.Attempt < 1 {
			return errors.New("want it released, or claimed again, and the attempt counted")
		}
	}
	return nil
}

// killed runs a worker process until it has said a random number of lines, kills
// it, and returns all that it said.
func killed(t *testing.T, dir string, run int) []ack {
	t.Helper()
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), workerDir+"="+dir, workerRun+"="+strconv.Itoa(run))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acks []ack
	lines := bufio.NewReader(out)
	last := mathrand.IntN(200) // some die as soon as they have opened the store
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a line without its end was not said
		}
		var a ack
		if _, scanErr := fmt.Sscan(line, &a.kind, &a.worker, &a.n, &a.token); err != nil || scanErr != nil {
			t.Fatalf("worker said %q: %v, %v", line, scanErr, err)
		}
		acks = append(acks, a)
		if len(acks) == last+1 {
			kill()
		}
	}
	if err := cmd.Wait(); err == nil || len(acks) <= last {
		t.Fatalf("run %d: the worker ended by itself, after %d lines: %v", run, len(acks), err)
	}
	return acks
}

// work is the worker process.
func work(dir string) {
	s, err := Open(dir, killOptions())
	run, runErr := strconv.Atoi(os.Getenv(workerRun))
	if err = errors.Join(err, runErr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var running sync.WaitGroup
	for w := range workers {
		running.Go(func() { workOn(s, run, w) })
	}
	for range time.Tick(5 * time.Millisecond) {
		if err = s.tend(); err != nil {
			break
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// workOn does batches of ops: many on keys that nobody asks for later, so that
// files expire, and one on a key that must last.
func workOn(s *Store, run, worker int) {
	for n := 0; ; n++ {
		say := func(kind dedup.OpKind, token dedup.Token) {
			// One write, so that a line is said whole or not at all, and before the
			// key's next op.
			if _, err := os.Stdout.WriteString(fmt.Sprintln(uint8(kind), worker, n, uint64(token))); err != nil {
				os.Exit(1)
			}
		}
		a := ack{worker: worker, n: n}
		lasting := a.key(run)
		ops := []dedup.Op{{Kind: dedup.OpClaim, ID: lasting, Nonce: 1, Lease: time.Minute, TTL: time.Hour, Position: position}}
		for range 80 {
			other := dedup.NewID("other", dedup.Key(rand.Text()))
			ops = append(ops, dedup.Op{Kind: dedup.OpClaim, ID: other, Nonce: 1, Lease: 20 * time.Millisecond, TTL: 20 * time.Millisecond})
		}
		replies := workApply(s, ops)
		token := replies[0].Record.Token
		say(dedup.OpClaim, token)
		ops = ops[:3]
		for i := 1; i < len(ops); i++ {
			ops[i].Kind, ops[i].Token = dedup.OpComplete, replies[i].Record.Token
			say(0, ops[i].Token)
		}
		a.token = token
		ops[0] = dedup.Op{ID: lasting, Token: token, TTL: time.Hour, Result: []byte(a.result())}
		switch n % 5 {
		case 0:
			continue // and is an orphan one day
		case 1:
			ops[0].Kind = dedup.OpPark
		case 2:
			ops[0].Kind, ops[0].Result = dedup.OpRelease, nil
		default:
			ops[0].Kind = dedup.OpComplete
		}
		workApply(s, ops)
		say(ops[0].Kind, token)
		if ops[0].Kind == dedup.OpRelease && n%2 == 0 {
			claim := dedup.Op{Kind: dedup.OpClaim, ID: lasting, Nonce: 2, Lease: time.Minute, TTL: time.Hour}
			say(dedup.OpClaim, workApply(s, []dedup.Op{claim})[0].Record.Token)
		}
	}
}

func workApply(s *Store, ops []dedup.Op) []dedup.Reply {
	replies, err := s.Apply(context.Background(), ops)
	for i := range replies {
		if err == nil {
			err = replies[i].Err
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return replies
}
