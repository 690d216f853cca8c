package mutants

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

// project is a module with a promise that its test keeps, and one that it does not.
var project = map[string]string{
	"go.mod": "module example.org/project\n\ngo 1.24\n",
	"sum/sum.go": `package sum

func Add(a, b int) int {
	return a + b // nothing else
}

func Twice(a int) int { return 2 * a }

func Wait(done bool) {
	for !done {
	}
}
`,
	"sum/sum_test.go": `package sum

import "testing"

func TestAdd(t *testing.T) {
	if got := Add(1, 2); got != 3 {
		t.Errorf("got %d, want 3", got)
	}
}

func TestTwice(t *testing.T) {
	if got := Twice(2); got != 4 {
		t.Errorf("got %d, want 4", got)
	}
}

func TestWait(t *testing.T) { Wait(true) }
`,
}

// plantAll plants the bugs of a list in the project, and returns what is printed.
func plantAll(t *testing.T, r Runner, list string) (counts Counts, out string, err error) {
	t.Helper()
	r.Root = t.TempDir()
	for name, text := range project {
		name = filepath.Join(r.Root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bugs, err := Load(fstest.MapFS{"lists/sum.txt": {Data: []byte(list)}}, "lists")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	r.Out, r.Parallel = &b, 2
	counts, err = r.Run(t.Context(), bugs)
	for name, text := range project {
		if now, err := os.ReadFile(filepath.Join(r.Root, name)); err != nil || string(now) != text {
			t.Errorf("%s has changed, or cannot be read: %v", name, err)
		}
	}
	return counts, b.String(), err
}

const list = `# A comment.
directory sum

bug minus
promise Add adds
tests TestAdd
- int {
- return a + b
- }
+ int {
+ return a - b
+ }

bug square
promise Twice doubles
tests TestTwice
- return 2 * a
+ return a * a

bug hang
promise Wait ends
tests TestWait
- for !done {
+ for done {

bug matches-twice
promise none
tests TestAdd
- int {
+ int64 {

bug matches-nowhere
promise none
tests TestAdd
- a * b
+ a / b

bug no-go
promise none
tests TestAdd
- return a + b
+ return a +

bug no-test
promise none
tests TestSubtract
- return a + b
+ return a - b
`

func TestVerdicts(t *testing.T) {
	counts, out, err := plantAll(t, Runner{Limit: 2 * time.Second}, list)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Counts{Killed: 2, Survived: 1, Errors: 4}); counts != want {
		t.Errorf("got %+v, want %+v", counts, want)
	}
	for _, want := range []string{
		"SURVIVED square at sum/sum.go:7", "Twice doubles; repeat with: make mutants ONLY=square\n",
		"ERROR matches-twice (lists/sum.txt:26): its code is at sum/sum.go:3 and sum/sum.go:7",
		"ERROR matches-nowhere (lists/sum.txt:32): its code is nowhere below sum",
		"ERROR no-go (lists/sum.txt:38, at sum/sum.go:4): the tests of sum do not build",
		"ERROR no-test (lists/sum.txt:44): there is no test TestSubtract below sum",
		"of 7 bugs in ", ": 2 killed, 1 survived, 4 errors in the lists, 0 left out\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("got %s\nwant %s", out, want)
		}
	}
}

// Without a bug the tests must pass, else a failure says nothing.
func TestTestsThatFailWithoutABug(t *testing.T) {
	good := project["sum/sum_test.go"]
	defer func() { project["sum/sum_test.go"] = good }()
	for _, c := range []struct{ old, new, want string }{
		{"got != 3", "got == 3", "without a bug, the tests of sum fail"},
		{"t.Errorf", "t.NoSuch", "without a bug, the tests of sum do not build"},
		{"TestAdd(t *testing.T) {", "TestAdd(t *testing.T) {\n\tt.Skip()", "the test TestAdd of sum does not run"},
	} {
		project["sum/sum_test.go"] = strings.Replace(good, c.old, c.new, 1)
		counts, out, err := plantAll(t, Runner{}, list[:strings.Index(list, "bug square")])
		if err == nil || !strings.Contains(err.Error(), c.want) || counts != (Counts{}) {
			t.Errorf("got %+v, %v, want an error with %q\n%s", counts, err, c.want, out)
		}
	}
}

// The order of a part depends on the seed alone.
func TestOrder(t *testing.T) {
	order := func(seed string) (names string) {
		var all []subject
		for _, name := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
			all = append(all, subject{Bug: Bug{Name: name}})
		}
		shuffle(all, seed)
		for _, s := range all {
			names += s.Name
		}
		return names
	}
	if a, b := order("1"), order("1"); a != b {
		t.Errorf("one seed: got %s and %s", a, b)
	}
	if a, b := order("1"), order("2"); a == b {
		t.Errorf("two seeds: got %s twice", a)
	}
}

func TestBudget(t *testing.T) {
	counts, _, err := plantAll(t, Runner{Budget: 1, Seed: "1"}, list[:strings.Index(list, "bug matches-twice")])
	if want := (Counts{Left: 3}); err != nil || counts != want {
		t.Errorf("got %+v, %v, want %+v", counts, err, want)
	}
}

func TestListErrors(t *testing.T) {
	const bug = "directory d\nbug a\npromise p\ntests TestA\n- x\n+ y\n"
	for list, want := range map[string]string{
		"":                    "no bugs in l/*.txt",
		"directory d\n":       "no bugs in l/*.txt",
		"bug a\n":             `l/a.txt:1: "bug a" has no place here`,
		bug + "directory e\n": `l/a.txt:7: "directory e" has no place here`,
		bug + "- x\n":         `l/a.txt:7: "- x" has no place here`,
		bug + "promise q\n":   `l/a.txt:7: "promise q" has no place here`,
		bug + "bug a\npromise p\ntests T\n- x\n+ z\n": "l/a.txt:7: there is another bug a at l/a.txt:2",
		bug + "bug b\ntests T\n- x\n+ z\n":            "l/a.txt:7: bug b needs a promise",
		"directory d\nbug a\npromise p\ntests T\n- x": "l/a.txt:2: bug a needs a promise",
	} {
		_, err := Load(fstest.MapFS{"l/a.txt": {Data: []byte(list)}}, "l")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", list, err, want)
		}
	}
}

func TestOnly(t *testing.T) {
	bugs := []Bug{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	if got, err := Only(bugs, " c a "); err != nil || len(got) != 2 || got[0].Name != "c" || got[1].Name != "a" {
		t.Errorf("got %v, %v, want c and a", got, err)
	}
	if _, err := Only(bugs, "a d"); err == nil || !strings.Contains(err.Error(), "no bug d") {
		t.Errorf("got %v, want an error that there is no bug d", err)
	}
}

// The lists of this project can be planted: make mutants does so.
func TestListsOfTheProject(t *testing.T) {
	root := os.DirFS(filepath.Join("..", ".."))
	bugs, err := Load(root, "internal/mutants")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bugs {
		if _, err := plant(root, b); err != nil {
			t.Errorf("%s, at %s: %v", b.Name, b.At, err)
		}
		if _, err := tests(root, b); err != nil {
			t.Errorf("%s, at %s: %v", b.Name, b.At, err)
		}
	}
}
