package dedup_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/oncequeue/oncequeue"

// TestImports holds the arrows of the design: the core needs the standard library
// alone, so that whoever embeds it takes on no other code; and transports,
// stores, metrics and the core can be used one without the other.
func TestImports(t *testing.T) {
	std := make(map[string]bool)
	for _, pkg := range goList(t, "std") {
		std[pkg] = true
	}
	for _, pkg := range goList(t, "-deps", module+"/dedup") {
		if pkg != module+"/dedup" && !std[pkg] {
			t.Errorf("dedup depends on %s, want the standard library only", pkg)
		}
	}
	for _, room := range []string{"/store", "/transport", "/dedup/metrics"} {
		packages := goList(t, module+room+"/...")
		if len(packages) == 0 {
			t.Errorf("no packages in %s: the test looks in the wrong place", room)
		}
		for _, dependency := range goList(t, "-deps", module+room+"/...") {
			ours, found := strings.CutPrefix(dependency, module)
			if found && ours != "/dedup" && !strings.HasPrefix(ours+"/", room+"/") {
				t.Errorf("%s depends on %s, want of our own only /dedup and %s", room, ours, room)
			}
		}
	}
}

// goList returns the import paths that go list prints.
func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-e"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, stderr.String())
	}
	return strings.Fields(string(out))
}
