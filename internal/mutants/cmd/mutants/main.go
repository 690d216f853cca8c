// Command mutants plants the bugs of the lists in internal/mutants, as package mutants says.
// Run it from the root of the project:
//
//	go run ./internal/mutants/cmd/mutants
//
// It exits with 1 if a bug survives or a list has an error, and with 2 if there are no
// verdicts.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/oncequeue/oncequeue/internal/mutants"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// run reports whether all bugs were killed.
func run(ctx context.Context, args []string) (ok bool, err error) {
	r := mutants.Runner{Root: ".", Out: os.Stdout}
	flags := flag.NewFlagSet("mutants", flag.ContinueOnError)
	lists := flags.String("lists", "internal/mutants", "directory of the lists")
	only := flags.String("only", "", "names of the bugs to plant; empty: all")
	flags.IntVar(&r.Parallel, "parallel", 2, "bugs at once")
	flags.DurationVar(&r.Limit, "limit", 0, "how long the tests of one bug may take; 0: 20s, or 2m with -full")
	flags.DurationVar(&r.Budget, "budget", 0, "begin no bug after this time, in an order by the seed; 0: all bugs")
	flags.StringVar(&r.Seed, "seed", "", "of the order; empty: the commit")
	flags.BoolVar(&r.Full, "full", false, "run all tests of a package, not only those that should fail")
	flags.BoolVar(&r.Verbose, "v", false, "a line for each bug")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	bugs, err := mutants.Load(os.DirFS(r.Root), *lists)
	if err != nil {
		return false, err
	}
	if *only != "" {
		if bugs, err = mutants.Only(bugs, *only); err != nil {
			return false, err
		}
	}
	if r.Budget > 0 {
		if r.Seed == "" {
			commit, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
			if err != nil {
				return false, fmt.Errorf("the commit is the seed, and git does not tell it: %w; give a -seed", err)
			}
			r.Seed = strings.TrimSpace(string(commit))
		}
		fmt.Printf("mutants: as many of %d bugs as fit in %v; repeat with: make mutants BUDGET=%v SEED=%s\n", len(bugs), r.Budget, r.Budget, r.Seed)
	}
	if r.Full && r.Limit == 0 {
		r.Limit = 2 * time.Minute
	}
	counts, err := r.Run(ctx, bugs)
	return counts.Survived+counts.Errors == 0, err
}
