package status

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func newStatus() (*Status, *strings.Builder) {
	var b strings.Builder
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: drop})), "kafka"), &b
}

func TestEachCauseIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := newStatus()
		refused, denied, other := errors.New("refused"), errors.New("denied"), errors.New("for a moment")
		for range 3 {
			s.Bad("t/0", refused)
			s.Bad("t/1", refused)
			s.Bad("group", other)
		}
		time.Sleep(lasting)
		for range 3 {
			s.Bad("t/0", refused)
			s.Bad("group", denied)
		}
		s.Good("t/0")
		s.Good("t/0")
		s.Good("group")
		s.Good("t/1")
		s.Bad("t/0", refused)
		want := `level=WARN msg="kafka fails, trying again until it answers" what=t/0 err=refused
level=WARN msg="kafka fails for another cause, trying again until it answers" what=group err=denied since=2000-01-01T00:00:00.000Z
level=INFO msg="kafka answers again"
level=WARN msg="kafka fails, trying again until it answers" what=t/0 err=refused
`
		if got := log.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

func TestFailingHasTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStatus()
		begin := time.Now()
		s.Bad("t/1", errors.New("first"))
		time.Sleep(time.Second)
		s.Bad("group", errors.New("other"))
		s.Bad("t/1", errors.New("last"))
		got := s.Failing()
		if len(got) != 2 || got[0].What != "group" || got[1].What != "t/1" {
			t.Fatalf("got %v, want group and t/1", got)
		}
		if f := got[1]; f.Err.Error() != "last" || !f.Since.Equal(begin) {
			t.Errorf("got %v, want the last error, since %v", f, begin)
		}
		s.Assigned([]string{"t/0", "t/1"})
		got = s.Failing()
		if len(got) != 2 || got[0].What != "t/0" || !got[0].Since.Equal(begin) || got[0].Err == nil {
			t.Errorf("after an assignment: got %v, want both partitions, since %v", got, begin)
		}
		s.Good("t/0")
		s.Forget("t/1")
		if got := s.Failing(); len(got) != 0 {
			t.Errorf("got %v, want nothing", got)
		}
		s.Assigned([]string{"t/0"})
		if got := s.Failing(); len(got) != 0 {
			t.Errorf("nothing failed before the assignment: got %v", got)
		}
	})
}

func TestProgress(t *testing.T) {
	s, _ := newStatus()
	before := time.Now()
	s.Moved()
	if got := s.Progress(); got.Before(before.Add(-time.Millisecond)) || got.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("got %v, want now", got)
	}
}
