package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// load makes a project of files.
func load(t *testing.T, files map[string]string) *Project {
	t.Helper()
	onDisk := fstest.MapFS{}
	for name, text := range files {
		onDisk[name] = &fstest.MapFile{Data: []byte(text)}
	}
	p, err := Load(onDisk)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// want compares findings with lines of the form "FILE:LINE part of the message".
func want(t *testing.T, found []Finding, lines ...string) {
	t.Helper()
	for _, line := range lines {
		at, part, _ := strings.Cut(line, " ")
		i := slices.IndexFunc(found, func(f Finding) bool {
			return fmt.Sprintf("%s:%d", f.File, f.Line) == at && strings.Contains(f.Wrong, part)
		})
		if i < 0 {
			t.Errorf("got no finding %q", line)
			continue
		}
		found = slices.Delete(found, i, i+1)
	}
	for _, f := range found {
		t.Errorf("got %v, want nothing there", f)
	}
}

func TestAFindingNamesPlaceFaultAndRemedy(t *testing.T) {
	f := Finding{"d/a.md", 7, "it is wrong", "mend it"}
	if got, want := f.String(), "d/a.md:7: it is wrong; mend it"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Hidden directories, and those of test data, are nobody's prose.
func TestLoadPassesOver(t *testing.T) {
	p := load(t, map[string]string{
		"a.md": "", ".cache/b.md": "", "x/testdata/c.go": "no Go", "x/d.go": "package x", "x/e.txt": "",
		".ci/run": "#!/bin/sh\n", "LICENSE": "text", ".golangci.yml": "# x", "bin/f.md": "",
	})
	var names []string
	for _, d := range p.documents {
		names = append(names, d.name)
	}
	for _, s := range p.sources {
		names = append(names, s.name)
	}
	slices.Sort(names)
	if want := []string{".ci/run", ".golangci.yml", "a.md", "x/d.go"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}
