package mutants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Runner plants bugs. Root and Out are needed.
type Runner struct {
	Root     string        // directory of the project's module
	Out      io.Writer     // a line for each bug that is not killed, and a last one with the counts
	Parallel int           // bugs at once; default 1
	Limit    time.Duration // how long the tests of one bug may take; default 20s
	Full     bool          // all tests of the packages of the named ones
	Budget   time.Duration // no bug is begun after that; 0: all are
	Seed     string        // of the order, with a Budget
	Verbose  bool          // a line for each bug
}

// Counts are the verdicts of one Run.
type Counts struct {
	Killed, Survived, Errors int
	Left                     int // not begun within the Budget
}

// subject is a bug in its file, with the tests that should kill it.
type subject struct {
	Bug
	planted
	tests map[string][]string // names by directory
}

// Run plants bugs one after the other, and tells which of them no test notices. An error
// means that there are no verdicts: the tests fail without any bug, or cannot be built.
func (r Runner) Run(ctx context.Context, bugs []Bug) (Counts, error) {
	start := time.Now()
	if r.Limit == 0 {
		r.Limit = 20 * time.Second
	}
	temporary, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return Counts{}, err
	}
	defer os.RemoveAll(temporary)
	var counts Counts
	var subjects []subject
	for _, b := range bugs {
		s := subject{Bug: b}
		fsys := os.DirFS(r.Root)
		s.planted, err = plant(fsys, b)
		if err == nil {
			s.tests, err = tests(fsys, b)
		}
		if err != nil {
			counts.Errors++
			fmt.Fprintf(r.Out, "mutants: ERROR %s (%s): %v\n", b.Name, b.At, err)
			continue
		}
		subjects = append(subjects, s)
	}
	if err := r.baseline(ctx, temporary, subjects); err != nil {
		return counts, err
	}
	if r.Budget > 0 {
		shuffle(subjects, r.Seed)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range max(r.Parallel, 1) {
		wg.Go(func() {
			mu.Lock()
			defer mu.Unlock()
			for len(subjects) > 0 && ctx.Err() == nil && (r.Budget == 0 || time.Since(start) < r.Budget) {
				s := subjects[0]
				subjects = subjects[1:]
				mu.Unlock()
				began := time.Now()
				survived, err := r.try(ctx, temporary, s)
				mu.Lock()
				r.tell(&counts, s, survived, err, time.Since(began))
			}
		})
	}
	wg.Wait()
	counts.Left = len(subjects)
	fmt.Fprintf(r.Out, "mutants: of %d bugs in %v: %d killed, %d survived, %d errors in the lists, %d left out\n",
		len(bugs), time.Since(start).Round(time.Second), counts.Killed, counts.Survived, counts.Errors, counts.Left)
	return counts, ctx.Err()
}

func (r Runner) tell(counts *Counts, s subject, survived bool, err error, took time.Duration) {
	verdict := "killed"
	switch {
	case err != nil:
		counts.Errors++
		fmt.Fprintf(r.Out, "mutants: ERROR %s (%s, at %s:%d): %v\n", s.Name, s.At, s.file, s.line, err)
		return
	case survived:
		counts.Survived++
		verdict = "SURVIVED"
	default:
		counts.Killed++
		if !r.Verbose {
			return
		}
	}
	full := ""
	if r.Full {
		full = " FULL=1"
	}
	fmt.Fprintf(r.Out, "mutants: %s %s at %s:%d in %.1fs: %s; repeat with: make mutants ONLY=%s%s\n",
		verdict, s.Name, s.file, s.line, took.Seconds(), s.Promise, s.Name, full)
}

// shuffle orders subjects by a seed.
func shuffle(subjects []subject, seed string) {
	h := fnv.New64a()
	_, _ = io.WriteString(h, seed)
	rand.New(rand.NewPCG(h.Sum64(), 0)).Shuffle(len(subjects), func(i, j int) {
		subjects[i], subjects[j] = subjects[j], subjects[i]
	})
}

// baseline runs all the tests without a bug.
func (r Runner) baseline(ctx context.Context, temporary string, subjects []subject) error {
	all := make(map[string][]string)
	for _, s := range subjects {
		for directory, names := range s.tests {
			all[directory] = append(all[directory], names...)
		}
	}
	for directory, names := range all {
		slices.Sort(names)
		names = slices.Compact(names)
		binary, err := r.build(ctx, temporary, directory)
		if err != nil {
			return fmt.Errorf("without a bug, %w", err)
		}
		out, err := r.test(ctx, binary, directory, 10*r.Limit, r.pattern(names))
		if err != nil {
			return fmt.Errorf("without a bug, the tests of %s fail: %w\n%s", directory, err, out)
		}
		for _, name := range names {
			if !strings.Contains(out, "--- PASS: "+name+" (") {
				return fmt.Errorf("the test %s of %s does not run", name, directory)
			}
		}
	}
	return nil
}

// try plants the bug of s, and reports whether it survived.
func (r Runner) try(ctx context.Context, temporary string, s subject) (survived bool, err error) {
	own, err := os.MkdirTemp(temporary, "bug")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(own)
	changed, overlay := filepath.Join(own, filepath.Base(s.file)), filepath.Join(own, "overlay.json")
	root, err := filepath.Abs(r.Root)
	if err != nil {
		return false, err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, s.file): changed}})
	if err != nil {
		return false, err
	}
	if err := errors.Join(os.WriteFile(changed, s.text, 0o600), os.WriteFile(overlay, text, 0o600)); err != nil {
		return false, err
	}
	for _, directory := range slices.Sorted(maps.Keys(s.tests)) {
		binary, err := r.build(ctx, own, directory, "-overlay", overlay)
		if err != nil {
			return false, err
		}
		var failed *exec.ExitError
		switch out, err := r.test(ctx, binary, directory, r.Limit, r.pattern(s.tests[directory])); {
		case errors.As(err, &failed) && failed.Exited():
			return false, nil
		case err != nil:
			return false, fmt.Errorf("the tests did not end by themselves: %w\n%s", err, tail(out))
		}
	}
	return true, nil
}

// build builds the tests of a directory, and returns the path of the binary.
func (r Runner) build(ctx context.Context, temporary, directory string, flags ...string) (binary string, err error) {
	binary, err = filepath.Abs(filepath.Join(temporary, strings.ReplaceAll(directory, "/", "-")+".test"))
	if err != nil {
		return "", err
	}
	args := append([]string{"test", "-c", "-p", "1", "-vet=off", "-gcflags=-N -l", "-ldflags=-s -w", "-o", binary}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "./"+directory)...)
	cmd.Dir = r.Root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("the tests of %s do not build: %w\n%s", directory, err, tail(string(out)))
	}
	return binary, nil
}

// test runs tests. It kills them long after the limit, at which they should end themselves.
func (r Runner) test(ctx context.Context, binary, directory string, limit time.Duration, pattern string) (out string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.timeout", limit.String(), "-test.run", pattern)
	cmd.Dir = filepath.Join(r.Root, directory)
	cmd.WaitDelay = time.Second
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (r Runner) pattern(names []string) string {
	if r.Full {
		return "."
	}
	return "^(" + strings.Join(names, "|") + ")$"
}

// tail returns the last lines of out.
func tail(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Join(lines[max(len(lines)-20, 0):], "\n")
}

// Only returns those of bugs whose names are in the list, which is separated by spaces.
func Only(bugs []Bug, names string) ([]Bug, error) {
	var chosen []Bug
	for _, name := range strings.Fields(names) {
		i := slices.IndexFunc(bugs, func(b Bug) bool { return b.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no bug %s in the lists", name)
		}
		chosen = append(chosen, bugs[i])
	}
	return chosen, nil
}
