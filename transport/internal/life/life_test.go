package life

import (
	"errors"
	"testing"
	"testing/synctest"
)

func TestEndWaitsForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Life
		for range 2 {
			if !l.Enter() {
				t.Fatal("open: got a refusal")
			}
		}
		ended := false
		go func() {
			l.End()
			ended = true
		}()
		synctest.Wait()
		if l.Enter() {
			t.Error("it ends: got a call in")
		}
		l.Leave()
		synctest.Wait()
		if ended {
			t.Error("a call is under way: it has ended")
		}
		l.Leave()
		synctest.Wait()
		if !ended {
			t.Error("no call is under way: it has not ended")
		}
		l.End()
	})
}

func TestAll(t *testing.T) {
	err := errors.New("closed")
	if errs := All(2, err); len(errs) != 2 || !errors.Is(errs[0], err) || !errors.Is(errs[1], err) {
		t.Errorf("got %v", errs)
	}
}
