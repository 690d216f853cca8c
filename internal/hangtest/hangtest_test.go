package hangtest

import (
	"strings"
	"testing"
	"testing/synctest"
)

func TestHangingTestIsNamedWithItsStacks(t *testing.T) {
	before := exit
	defer func() { exit = before }()
	var text string
	exit = func(s string) { text = s }
	t.Run("fast", func(t *testing.T) { Watch(t); look(2) })
	if text != "" {
		t.Errorf("a test that ended in time: got %q", text)
	}
	synctest.Test(t, func(t *testing.T) {
		Watch(t)
		look(2)
		look(2)
	})
	for _, part := range []string{t.Name() + " hangs", "hangtest.look("} {
		if !strings.Contains(text, part) {
			t.Errorf("got %q, want it to name %q", text, part)
		}
	}
	if look(1); len(watched.seconds) != 0 {
		t.Errorf("got %v watched after all have ended", watched.seconds)
	}
}
