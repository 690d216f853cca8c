package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options are those of the command line.
type Options struct {
	Only       []string // suites; empty: all but those on demand
	Contenders []string // empty: all
	Rounds     int
	Messages   int    // 0: as the suite has it
	Dir        string // where durable contenders write
	Profile    string // directory; profile instead of measuring
	Progress   io.Writer
}

// RunAll runs the suites one after the other.
func RunAll(ctx context.Context, suites []Suite, o Options) (*Report, error) {
	var chosen []Suite
	for _, s := range suites {
		if slices.Contains(o.Only, s.Name) || len(o.Only) == 0 && !s.OnDemand {
			chosen = append(chosen, s)
		}
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(suites, func(s Suite) bool { return s.Name == name }) {
			return nil, fmt.Errorf("there is no suite %q", name)
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	machine, err := inspectMachine(o.Dir)
	if err != nil {
		return nil, err
	}
	report := &Report{Machine: machine, Date: time.Now().UTC().Truncate(time.Second), Rounds: o.Rounds}
	for _, s := range chosen {
		sr, err := runSuite(ctx, s, o)
		if err != nil {
			return report, fmt.Errorf("suite %s: %w", s.Name, err)
		}
		report.Suites = append(report.Suites, sr)
	}
	return report, nil
}

func runSuite(ctx context.Context, s Suite, o Options) (_ *SuiteReport, err error) {
	began := time.Now()
	dir, err := os.MkdirTemp(o.Dir, "bench-"+s.Name+"-")
	if err != nil {
		return nil, err
	}
	r := &Run{Dir: dir, Messages: s.Messages, scale: 1, suite: &s, results: make(results)}
	if o.Messages > 0 {
		r.Messages, r.scale = o.Messages, min(1, float64(o.Messages)/float64(s.Messages))
	}
	defer func() {
		for _, fn := range slices.Backward(r.cleanups) {
			err = errors.Join(err, fn())
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	fmt.Fprintf(o.Progress, "%s: %s\n", s.Name, s.What)
	err = s.Declare(ctx, r)
	if skip := Skip(""); errors.As(err, &skip) {
		fmt.Fprintf(o.Progress, "%s: SKIPPED: %s\n", s.Name, skip)
		return &SuiteReport{Name: s.Name, Skipped: string(skip)}, nil
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, err
	}
	r.keep(o.Contenders)
	if o.Profile != "" {
		return &SuiteReport{Name: s.Name}, r.profile(ctx, s.Name, o)
	}
	if err := r.rounds(ctx, o); err != nil {
		return nil, err
	}
	for _, m := range r.measures {
		if err := r.measure(ctx, m, o.Progress); err != nil {
			return nil, err
		}
	}
	return r.report(s.Name, time.Since(began)), nil
}

func (r *Run) messages(c *Contender) int {
	if c.Share == 0 {
		return r.Messages
	}
	return max(1, int(float64(r.Messages)*c.Share))
}

func (r *Run) dirOf(c *Contender) string {
	return filepath.Join(r.Dir, strings.ReplaceAll(c.Name, "/", "-"))
}

// rounds lets the contenders work in turns: A B A B.
func (r *Run) rounds(ctx context.Context, o Options) error {
	for number := range o.Rounds + 1 {
		if len(r.contenders) == 0 {
			return nil
		}
		began := time.Now()
		if number == 0 {
			fmt.Fprint(o.Progress, "  warm-up:")
		} else {
			fmt.Fprintf(o.Progress, "  round %d of %d:", number, o.Rounds)
		}
		for _, c := range r.contenders {
			if err := ctx.Err(); err != nil {
				return err
			}
			fmt.Fprintf(o.Progress, " %s", c.Name)
			n := r.messages(c)
			if number == 0 {
				n = max(1, n/10)
			}
			values, err := c.run(ctx, r.dirOf(c), number, n, nil)
			if err != nil {
				return err
			}
			fmt.Fprintf(o.Progress, " %s/s,", Brief(values[Rate]))
			if number == 0 {
				continue
			}
			for metric, v := range values {
				r.results.add(c.Name, metric, v)
			}
		}
		fmt.Fprintf(o.Progress, " %.0f s\n", time.Since(began).Seconds())
	}
	return r.countSyncs(ctx, o)
}

// countSyncs gives those contenders that want it one more round, under strace.
func (r *Run) countSyncs(ctx context.Context, o Options) error {
	wants := func(c *Contender) bool { return c.Syncs }
	if !slices.ContainsFunc(r.contenders, wants) {
		return nil
	}
	if _, err := exec.LookPath("strace"); err != nil {
		fmt.Fprintln(o.Progress, "  fsyncs are not counted: that takes strace (apt-get install strace)")
		return nil
	}
	fmt.Fprint(o.Progress, "  fsyncs per 1,000 messages, under strace:")
	for _, c := range r.contenders {
		if !wants(c) {
			continue
		}
		t := &tracer{dir: r.Dir}
		n := r.messages(c)
		_, err := c.run(ctx, r.dirOf(c), o.Rounds+1, n, t)
		if skip := Skip(""); errors.As(err, &skip) {
			fmt.Fprintf(o.Progress, " not counted: %s\n", skip)
			return nil
		}
		if err != nil {
			return err
		}
		syncs := float64(t.calls) * 1000 / float64(n)
		r.results.add(c.Name, Syncs, syncs)
		fmt.Fprintf(o.Progress, " %s %s,", c.Name, Brief(syncs))
	}
	fmt.Fprintln(o.Progress)
	return nil
}

func (r *Run) measure(ctx context.Context, m measure, progress io.Writer) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(progress, "  %s ...", m.name)
	dir, err := os.MkdirTemp(r.Dir, "measure-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	out := &Measure{Dir: dir, values: make(map[string][]float64)}
	err = m.fn(ctx, out)
	if skip := Skip(""); errors.As(err, &skip) {
		fmt.Fprintf(progress, " SKIPPED: %s\n", skip)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	for name, values := range out.values {
		for _, v := range values {
			r.results.add("", name, v)
		}
	}
	fmt.Fprintf(progress, " %.0f s\n", time.Since(began).Seconds())
	return nil
}
