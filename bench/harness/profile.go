package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// profiler writes the profiles of one round: CPU, allocations, and waits for mutexes.
type profiler struct {
	prefix string
	cpu    *os.File
}

// One of so many waits for a mutex is recorded.
const mutexFraction = 10

func (p *profiler) path(kind string) string { return p.prefix + "." + kind + ".pprof" }

func (p *profiler) start([]int) error {
	// The samples from before the round are subtracted when the profile is read.
	if err := errors.Join(p.write("allocs", "allocs-before"), p.write("mutex", "mutex-before")); err != nil {
		return err
	}
	runtime.SetMutexProfileFraction(mutexFraction)
	f, err := os.Create(p.path("cpu"))
	if err != nil {
		return err
	}
	p.cpu = f
	return pprof.StartCPUProfile(f)
}

func (p *profiler) stop() error {
	pprof.StopCPUProfile()
	runtime.SetMutexProfileFraction(0)
	return errors.Join(p.cpu.Close(), p.write("heap", "heap"), p.write("allocs", "allocs"), p.write("mutex", "mutex"))
}

func (p *profiler) write(profile, kind string) error {
	f, err := os.Create(p.path(kind))
	if err != nil {
		return err
	}
	return errors.Join(pprof.Lookup(profile).WriteTo(f, 0), f.Close())
}

// A profiled round is this much longer than another.
const profileTimes = 5

// profile profiles one long round of each contender and prints the top of each profile.
func (r *Run) profile(ctx context.Context, suite string, o Options) error {
	if err := os.MkdirAll(o.Profile, 0o755); err != nil {
		return err
	}
	for _, c := range r.contenders {
		n := r.messages(c)
		if _, err := c.run(ctx, r.dirOf(c), 0, max(1, n/10), nil); err != nil {
			return err
		}
		p := &profiler{prefix: filepath.Join(o.Profile, suite+"-"+c.Name)}
		values, err := c.run(ctx, r.dirOf(c), 1, n*profileTimes, p)
		if err != nil {
			return err
		}
		fmt.Fprintf(o.Progress, "\n== %s %s: %s msg/s, %.2f µs CPU and %.1f allocs per message (profiled)\n",
			suite, c.Name, Brief(values[Rate]), values[CPU], values[Allocs])
		for _, top := range []struct {
			what string
			args []string
		}{
			{"CPU", []string{p.path("cpu")}},
			{"allocated objects", []string{"-sample_index=alloc_objects", "-base=" + p.path("allocs-before"), p.path("allocs")}},
			{"heap in use", []string{"-sample_index=inuse_space", p.path("heap")}},
			{"waits for mutexes", []string{"-sample_index=delay", "-base=" + p.path("mutex-before"), p.path("mutex")}},
		} {
			fmt.Fprintf(o.Progress, "\n-- %s\n", top.what)
			cmd := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-top", "-nodecount=10"}, top.args...)...)
			cmd.Stdout, cmd.Stderr = o.Progress, o.Progress
			if err := cmd.Run(); err != nil {
				return err
			}
		}
	}
	return nil
}
