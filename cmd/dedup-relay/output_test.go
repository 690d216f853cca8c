package main

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// output is what a process has written so far.
type output struct {
	line string // when something with that is written
	then func() // this is called, if set
	mu   sync.Mutex
	b    bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.then != nil && bytes.Contains(p, []byte(o.line)) {
		o.then()
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) await(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(o.String(), text) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited two minutes for %q in:\n%s", text, o)
		}
	}
}

func (o *output) find(pattern *regexp.Regexp) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if m := pattern.FindSubmatch(o.b.Bytes()); m != nil {
		return string(m[1])
	}
	return ""
}
