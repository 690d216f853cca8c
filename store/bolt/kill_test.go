package boltstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// workerDir is the environment variable that makes this test binary a worker on
// a store, to be killed.
const (
	workerDir = "BOLTSTORE_TEST_WORKER"
	workerRun = "BOLTSTORE_TEST_RUN" // tells its keys from those of other runs
)

func TestKill(t *testing.T) {
	t.Parallel()
	testKill(t, 8)
}

// testKill kills a process under load, time and again, and wants all that it was
// answered to be there afterwards.
func testKill(t *testing.T, kills int) {
	dir := t.TempDir()
	l := newLedger()
	for run := range kills {
		for _, f := range killed(t, dir, run) {
			l.write(f)
		}
		o, _ := crashOptions()
		s, err := Open(dir, o)
		if err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		l.audit(t, s, run)
		closeStore(t, s)
		if t.Failed() {
			return
		}
		progress(t, run+1, kills, l)
	}
	numbers, _, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.wantLoad(t, kills, numbers[0])
}

// progress logs each tenth of what takes long.
func progress(t *testing.T, n, of int, what fmt.Stringer) {
	t.Helper()
	if of >= 50 && n < of && n%(of/10) == 0 {
		t.Logf("%d of %d: %v", n, of, what)
	}
}

// killed runs a worker process until it has said a random number of facts, kills
// it, and returns all that it said.
func killed(t *testing.T, dir string, run int) []fact {
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
	var facts []fact
	lines := bufio.NewReader(out)
	last := mathrand.IntN(60) // some die as soon as they have opened the store
	for {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break // a line without its end was not said
		}
		f := fact{group: group{run: run}, tokens: make([]driver.Token, groupSize+1)}
		words := []any{&f.phase, &f.worker, &f.n}
		for i := range f.tokens {
			words = append(words, &f.tokens[i])
		}
		if _, scanErr := fmt.Sscan(line, words...); err != nil || scanErr != nil {
			t.Fatalf("worker said %q: %v, %v", line, scanErr, err)
		}
		facts = append(facts, f)
		if len(facts) == last+1 {
			kill()
		}
	}
	if err := cmd.Wait(); err == nil || len(facts) <= last {
		t.Fatalf("run %d: the worker ended by itself, after %d lines: %v", run, len(facts), err)
	}
	return facts
}

// workerMain is the worker process.
func workerMain(dir string) {
	run, err := strconv.Atoi(os.Getenv(workerRun))
	o, clock := crashOptions()
	s, openErr := Open(dir, o)
	if err = errors.Join(err, openErr); err == nil {
		err = load(s, clock, run, func(f fact) error {
			words := []any{int(f.phase), f.worker, f.n}
			for i := range groupSize + 1 {
				token := driver.Token(0)
				if i < len(f.tokens) {
					token = f.tokens[i]
				}
				words = append(words, uint64(token))
			}
			// One write, so that a line is said whole or not at all.
			_, err := os.Stdout.WriteString(fmt.Sprintln(words...))
			return err
		})
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
