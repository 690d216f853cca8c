package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

// asRelay makes the test binary be the relay.
const asRelay = "ONCEQUEUE_TEST_RELAY"

func TestMain(m *testing.M) {
	if os.Getenv(asRelay) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestSignals(t *testing.T) {
	for name, c := range map[string]struct {
		hang  bool // the target, so that there is something to drain
		terms int
		code  int
		says  string
	}{
		"one drains":             {false, 1, exitClean, "relayed=1"},
		"a second exits at once": {true, 2, exitFailure, "second signal"},
	} {
		t.Run(name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"orders": 1}, nil)
			to := brokertest.NewKafka(t, map[string]int32{"orders.once": 1}, nil)
			var asked atomic.Bool
			to.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
				to.Cluster().KeepControl()
				asked.Store(true)
				return nil, nil, c.hang
			})
			cmd := exec.Command(os.Args[0], "run", "--listen", "", "--store", "mem:",
				"--from", "kafka://"+k.Addrs()[0]+"/orders?group=g", "--to", "kafka://"+to.Addrs()[0]+"/orders.once")
			cmd.Env = append(os.Environ(), asRelay+"=1")
			var stderr output
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- cmd.Wait() }()
			defer func() { _ = cmd.Process.Kill() }()
			if err := k.Produce(t.Context(), false, &kgo.Record{Topic: "orders", Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "Idempotency-Key", Value: []byte("k")}}}); err != nil {
				t.Fatal(err)
			}
			if c.hang {
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for !asked.Load() {
					<-tick.C
				}
			} else if err := k.AwaitCommitted(t.Context(), "g", "orders"); err != nil {
				t.Fatal(err)
			}
			for term := range c.terms {
				if term > 0 {
					stderr.await(t, "draining")
				}
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
			err := <-exited
			var exit *exec.ExitError
			code := exitClean
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != c.code || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("got exit %d, want %d and %q in:\n%s", code, c.code, c.says, stderr.String())
			}
		})
	}
}
