// Package golden compares what a part of the project shows to its users with a list in
// a file, so that no change of it goes unnoticed.
package golden

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden lists of the package anew")

// Update reports whether the lists are to be written and not compared.
func Update() bool { return *update }

// Lines compares the lines, in any order, with those of a file.
func Lines(t *testing.T, file string, lines []string) {
	t.Helper()
	lines = slices.Sorted(slices.Values(lines))
	if *update {
		Write(t, file, lines)
		return
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Errorf("%v; run go test with -update to write the list", err)
		return
	}
	if changes := diff(strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), lines); len(changes) > 0 {
		t.Errorf("what users see differs from %s:\n%s\nif that is meant, run go test with -update, and write a line in CHANGELOG.md", file, strings.Join(changes, "\n"))
	}
}

// Write writes the lines to a file.
func Write(t *testing.T, file string, lines []string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
}

// diff returns the lines that one side has more often than the other: behind a minus
// those of before, and behind a plus those of after. Lines that begin alike stand together.
func diff(before, after []string) (changes []string) {
	count := map[string]int{}
	for _, l := range before {
		count[l]--
	}
	for _, l := range after {
		count[l]++
	}
	var lines []string
	for l, n := range count {
		if n != 0 {
			lines = append(lines, l)
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		sign := "-"
		if count[l] > 0 {
			sign = "+"
		}
		changes = append(changes, fmt.Sprintf("  %s %s", sign, l))
	}
	return changes
}
