package dedup_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/oncequeue/oncequeue"

// TestImports holds the arrows of the design: the core needs the standard library
// alone, so that whoever embeds it takes on no other code; stores need no more of it
// than package driver; and transports, stores, metrics and the core can be used one
// without the other.
func TestImports(t *testing.T) {
	std := make(map[string]bool)
	for _, pkg := range goList(t, "std") {
		std[pkg] = true
	}
	for room, below := range map[string][]string{
		"/dedup":        {"/dedup/driver", "/dedup/internal/"},
		"/dedup/driver": {"/dedup/internal/"},
	} {
		for _, pkg := range goList(t, "-deps", module+room) {
			if ours, found := strings.CutPrefix(pkg, module); pkg != module+room && !std[pkg] && !(found && under(ours, below)) {
				t.Errorf("%s depends on %s, want of all but the standard library only %v", room, pkg, below)
			}
		}
	}
	core := []string{"/dedup", "/dedup/driver", "/dedup/internal/"}
	for _, room := range []string{"/store", "/transport", "/dedup/metrics", "/dedup/storetest"} {
		packages := goList(t, module+room+"/...")
		if len(packages) == 0 {
			t.Errorf("no packages in %s: the test looks in the wrong place", room)
		}
		for _, dependency := range goList(t, "-deps", module+room+"/...") {
			ours, found := strings.CutPrefix(dependency, module)
			if found && !under(ours, core) && !strings.HasPrefix(ours+"/", room+"/") {
				t.Errorf("%s depends on %s, want of our own only %v and %s", room, ours, core, room)
			}
		}
		for _, direct := range goList(t, "-f", `{{join .Imports "\n"}}`, module+room+"/...") {
			if strings.HasPrefix(direct, module+"/dedup/internal/") {
				t.Errorf("%s imports %s, want it only through dedup and dedup/driver", room, direct)
			}
		}
	}
}

// under reports whether pkg is one of all, or below one that ends with a slash.
func under(pkg string, all []string) bool {
	for _, one := range all {
		if pkg == one || strings.HasSuffix(one, "/") && strings.HasPrefix(pkg, one) {
			return true
		}
	}
	return false
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
