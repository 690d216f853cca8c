package wait_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/transport/internal/wait"
)

func TestForEndsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quit, begin := make(chan struct{}), time.Now()
		time.AfterFunc(time.Second, func() { close(quit) })
		if wait.For(quit, time.Hour) || time.Since(begin) != time.Second {
			t.Errorf("got the whole wait, or an end after %v, want an early end after 1s", time.Since(begin))
		}
		if !wait.For(nil, time.Minute) {
			t.Error("nobody quit: got an early end")
		}
	})
}

func TestBackoffGrowsToItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b wait.Backoff
		for _, most := range []time.Duration{50, 100, 200, 400, 800, 1600, 2000, 2000} {
			most, begin := most*time.Millisecond, time.Now()
			if !b.Wait(t.Context()) {
				t.Fatal("got an early end")
			}
			if took := time.Since(begin); took < most/2 || took > most {
				t.Errorf("got a pause of %v, want from half of %v to all of it", took, most)
			}
		}
		b.Reset()
		begin := time.Now()
		b.Wait(t.Context())
		if took := time.Since(begin); took > 50*time.Millisecond {
			t.Errorf("after a reset: got a pause of %v, want at most 50ms", took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if b.Wait(ended) {
			t.Error("the context has ended: got a pause")
		}
	})
}

func TestNotifyDoesNotBlock(t *testing.T) {
	c := make(chan struct{}, 1)
	wait.Notify(c)
	wait.Notify(c)
	if len(c) != 1 {
		t.Errorf("got %d elements, want 1", len(c))
	}
}
