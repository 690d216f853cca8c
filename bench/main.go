// Command bench compares oncequeue with its peers and with the limits of the machine
// do. See README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/oncequeue/oncequeue/bench/bolt"
	"github.com/oncequeue/oncequeue/bench/harness"
	kafkabench "github.com/oncequeue/oncequeue/bench/kafka"
	natsbench "github.com/oncequeue/oncequeue/bench/nats"
	redisbench "github.com/oncequeue/oncequeue/bench/redis"
)

// suites in the order in which they run. All but those on demand end in ten
// minutes on two cores.
var suites = []harness.Suite{
	boltbench.Suite,
	boltbench.Growth,
	kafkabench.Suite,
	kafkabench.Real,
	natsbench.Suite,
	redisbench.Suite,
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run returns the exit code: 0 if everything ran, whether bars were met or not;
// 1 if something failed, or was skipped where CI=true; 2 for wrong flags.
func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "suites to run, comma-separated (default all but those on demand)")
	contenders := flags.String("contenders", "", "contenders to run, comma-separated (default all)")
	rounds := flags.Int("rounds", 7, "rounds of each contender")
	messages := flags.Int("messages", 0, "messages in a round (default the suite's own)")
	jsonFile := flags.String("json", "", "file to write the results to, as JSON")
	dir := flags.String("dir", filepath.Join(os.TempDir(), "oncequeue-bench"), "directory on a disk, for what is durable")
	profile := flags.String("profile", "", "directory to write profiles to, instead of measuring")
	serve := flags.String("serve", "", "be the server SUITE/NAME; the bench starts itself so")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: bench [flags]\n\nsuites:")
		for _, s := range suites {
			note := ""
			if s.OnDemand {
				note = " (on demand)"
			}
			fmt.Fprintf(flags.Output(), "  %-8s %s%s\n", s.Name, s.What, note)
		}
		fmt.Fprintln(flags.Output(), "\nflags:")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() > 0 || *rounds < 1 || *messages < 0 {
		fmt.Fprintln(os.Stderr, "bench: flags only; --rounds is at least 1, --messages at least 0")
		return 2
	}
	if *serve != "" {
		if err := harness.RunServer(ctx, suites, *serve); err != nil {
			fmt.Fprintln(os.Stderr, "bench: serve:", err)
			return 1
		}
		return 0
	}
	report, err := harness.RunAll(ctx, suites, harness.Options{
		Only:       list(*only),
		Contenders: list(*contenders),
		Rounds:     *rounds,
		Messages:   *messages,
		Dir:        *dir,
		Profile:    *profile,
		Progress:   os.Stderr,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if *profile == "" {
		report.Print(os.Stdout)
	}
	if *jsonFile != "" {
		if err := report.WriteFile(*jsonFile); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
	}
	if skipped := report.Skipped(); len(skipped) > 0 && os.Getenv("CI") == "true" {
		fmt.Fprintln(os.Stderr, "bench: skipped, and CI=true:", strings.Join(skipped, ", "))
		return 1
	}
	return 0
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
