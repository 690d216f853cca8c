// Package hangtest makes a test that hangs fail within seconds, with the stacks of all
// goroutines. The time limit of go test is that of a whole package, and minutes long.
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(hangtest.M(m)) }
//
// Then call Watch in what each test needs, such as the helper that makes its subject.
package hangtest

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Limit is how long a watched test may take, by the real clock also in a bubble of
// testing/synctest.
const Limit = 30 * time.Second

var watched = struct {
	sync.Mutex
	seconds map[string]int // by the name of the test
}{seconds: make(map[string]int)}

// Watch watches t until it ends.
func Watch(t testing.TB) {
	name := t.Name()
	watched.Lock()
	defer watched.Unlock()
	if _, twice := watched.seconds[name]; twice {
		return
	}
	watched.seconds[name] = 0
	t.Cleanup(func() {
		watched.Lock()
		defer watched.Unlock()
		delete(watched.seconds, name)
	})
}

type run struct{ m *testing.M }

// M returns m, whose tests are watched while it runs.
func M(m *testing.M) interface{ Run() int } { return run{m} }

func (r run) Run() int {
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(time.Second) // a bubble's clock is not this one's
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				look(int(Limit / time.Second))
			case <-ended:
				return
			}
		}
	}()
	defer func() {
		close(ended)
		<-stopped
	}()
	return r.m.Run()
}

// exit is replaced by the test.
var exit = func(text string) {
	fmt.Fprint(os.Stderr, text)
	os.Exit(1)
}

// look counts a second for each test that is watched.
func look(limit int) {
	watched.Lock()
	defer watched.Unlock()
	for name := range watched.seconds {
		if watched.seconds[name]++; watched.seconds[name] >= limit {
			stacks := make([]byte, 16<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			exit(fmt.Sprintf("--- FAIL: %s hangs, after %d s:\n\n%s", name, limit, stacks))
		}
	}
}
