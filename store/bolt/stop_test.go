//go:build unix

package boltstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// holderDir is the environment variable that makes this test binary a process that
// holds claims, to be stopped.
const holderDir = "BOLTSTORE_TEST_HOLDER"

const (
	stopLease = 50 * time.Millisecond
	lapsed    = "lapsed"
)

func init() { children[holderDir] = holderMain }

func TestStop(t *testing.T) {
	t.Parallel()
	testStop(t, 3)
}

// testStop stops a process for longer than its leases, time and again. What it held
// is lost when it goes on, although it has not noticed: it looks for that itself,
// see hold.
func testStop(t *testing.T, stops int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holderDir+"="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	found := 0
	read := func() bool {
		ok := lines.Scan()
		if lines.Text() == lapsed {
			found++
		}
		return ok
	}
	for range stops {
		for range rand.IntN(20) + 10 {
			if !read() {
				t.Fatalf("the process ended by itself: %v", cmd.Wait())
			}
		}
		err := cmd.Process.Signal(syscall.SIGSTOP)
		<-time.After(3 * stopLease)
		if err = errors.Join(err, cmd.Process.Signal(syscall.SIGCONT)); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	for read() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the process: %v", err)
	}
	t.Logf("stopped %d times, %d leases lapsed", stops, found)
	if found == 0 {
		t.Errorf("stopped %d times, and no lease lapsed", stops)
	}
}

// holderMain holds claims until its input ends.
func holderMain(dir string) {
	s, err := Open(dir, nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var stop atomic.Bool
	var holding sync.WaitGroup
	for w := range workers {
		holding.Go(func() {
			for n := 0; !stop.Load(); n++ {
				how, err := hold(s, dedup.NewID("hold", dedup.Key(fmt.Sprint(w, " ", n))))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Println(how)
			}
		})
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop.Store(true)
	holding.Wait()
	if err := s.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// hold claims a key, renews the claim for a while, and completes it. When the lease
// has lapsed, a rival takes over, and nothing that the first one does counts.
func hold(s *Store, id driver.ID) (how string, err error) {
	one := func(kind driver.OpKind, nonce uint64, token driver.Token, want ...driver.Status) driver.Reply {
		op := driver.Op{Kind: kind, ID: id, Nonce: nonce, Token: token, Lease: stopLease, TTL: time.Hour}
		if kind == driver.OpComplete {
			op.Result = resultOf(token)
		}
		replies, applyErr := s.Apply(context.Background(), []driver.Op{op})
		if applyErr != nil {
			err = errors.Join(err, applyErr)
			return driver.Reply{}
		}
		for _, w := range want {
			if replies[0].Err == nil && replies[0].Status == w {
				return replies[0]
			}
		}
		err = errors.Join(err, fmt.Errorf("%v under token %d: got %+v, want %v", kind, token, replies[0], want))
		return replies[0]
	}
	token := one(driver.OpClaim, 1, 0, driver.StatusGranted).Record.Token
	renewed := time.Now() // at the latest
	for range 10 {
		<-time.After(2 * time.Millisecond)
		sent := time.Now()
		r := one(driver.OpExtend, 0, token, driver.StatusOK, driver.StatusLost)
		if err != nil {
			return "", err
		}
		if r.Status == driver.StatusLost {
			rival := one(driver.OpClaim, 2, 0, driver.StatusGranted).Record
			if rival.Token <= token || !rival.Ambiguous || rival.Attempt != 1 {
				err = errors.Join(err, fmt.Errorf("a rival's claim after token %d: got %+v, want a greater token, Ambiguous, Attempt 1", token, rival))
			}
			for _, kind := range []driver.OpKind{driver.OpExtend, driver.OpRelease, driver.OpPark, driver.OpComplete} {
				one(kind, 0, token, driver.StatusLost)
			}
			one(driver.OpComplete, 0, rival.Token, driver.StatusOK)
			done := one(driver.OpClaim, 1, 0, driver.StatusDone).Record
			if !bytes.Equal(done.Result, resultOf(rival.Token)) {
				err = errors.Join(err, fmt.Errorf("got the result %q, want the rival's, %q", done.Result, resultOf(rival.Token)))
			}
			return lapsed, err
		}
		if sent.Sub(renewed) > stopLease {
			return "", fmt.Errorf("an extend %v after the last one was accepted, the lease is %v", sent.Sub(renewed), stopLease)
		}
		renewed = time.Now()
	}
	one(driver.OpComplete, 0, token, driver.StatusOK)
	return "held", err
}
