// Package life is the life of a sink: calls go on side by side until it is closed, and
// Close waits for them.
package life

import "sync"

// Life counts calls. The zero value is open.
type Life struct {
	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

// Enter begins a call, which ends with Leave. It returns false if the Life is over.
func (l *Life) Enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.calls.Add(1)
	}
	return !l.closed
}

// Leave ends a call that Enter began.
func (l *Life) Leave() { l.calls.Done() }

// End refuses later calls, and waits for those under way. It may be called again.
func (l *Life) End() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.calls.Wait()
}

// All returns n times err: the answer of a call that was refused.
func All(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}
