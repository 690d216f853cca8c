// Package transporttest holds helpers for the tests of every transport: a consumer
// that runs in the background, and ways to wait for it.
package transporttest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"go.uber.org/goleak"
)

// patience is how long a test waits before it fails. It is generous, because brokers
// and tests may share a processor with others, and a step of a second then takes a
// minute.
const patience = 2 * time.Minute

// Main runs the tests of a package, and fails if they leave goroutines behind. goleak
// itself waits half a second for them to end; a machine that stands still exceeds that.
func Main(m *testing.M) {
	code := m.Run()
	if code == 0 {
		end := time.Now().Add(patience / 4)
		for err := goleak.Find(); err != nil; err = goleak.Find() {
			if time.Now().After(end) {
				fmt.Fprintln(os.Stderr, "goroutines are left behind:", err)
				code = 1
				break
			}
		}
	}
	os.Exit(code)
}

// NewDeduplicator makes a Deduplicator over store that takes keys from the header
// and is shut down when the test ends.
func NewDeduplicator(t *testing.T, store driver.Store, o *dedup.Options) *dedup.Deduplicator {
	t.Helper()
	d, err := dedup.New(store, "test", dedup.HeaderKey(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := d.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	return d
}

// Run is a Run or RunBatch of a Consumer that goes on in the background.
type Run struct {
	t      *testing.T
	Cancel context.CancelFunc // ends its context
	Done   chan struct{}      // closed when it has returned
	err    error
}

// Start calls f in the background, with a context that ends with the test.
func Start(t *testing.T, f func(ctx context.Context) error) *Run {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Run{t: t, Cancel: cancel, Done: make(chan struct{})}
	go func() {
		defer close(r.Done)
		r.err = f(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.Done
	})
	return r
}

// Stop ends the context of the run, waits, and returns the run's error.
func (r *Run) Stop() error {
	r.t.Helper()
	r.Cancel()
	return r.Wait()
}

// Wait waits until the run has returned, and returns its error.
func (r *Run) Wait() error {
	r.t.Helper()
	select {
	case <-r.Done:
	case <-time.After(patience):
		r.t.Fatalf("Run did not return within %v", patience)
	}
	return r.err
}

// Eventually polls until the condition holds.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not within %v: %s", patience, what)
		case <-tick.C:
		}
	}
}

// Pauses watches for how long this process stands still. Call longest at the end of the
// test: a long pause excuses work that was not done in time.
func Pauses(t *testing.T) (longest func() time.Duration) {
	quit, most := make(chan struct{}), make(chan time.Duration, 1)
	stop := sync.OnceFunc(func() { close(quit) })
	t.Cleanup(stop)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var worst time.Duration
		for last := time.Now(); ; {
			select {
			case <-quit:
				most <- worst
				return
			case <-tick.C:
			}
			worst = max(worst, time.Since(last))
			last = time.Now()
		}
	}()
	return func() time.Duration {
		stop()
		return <-most
	}
}

// Logger shows the log of a test that failed, and nothing after its end.
func Logger(t *testing.T) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu     sync.Mutex
	t      *testing.T
	closed bool
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
}
