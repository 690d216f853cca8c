// Command dedup-relay moves messages between two topics and drops duplicates.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		cancel()  // drain
		<-signals // an operator who asks twice means now
		fmt.Fprintln(os.Stderr, "dedup-relay: second signal: exiting at once; what was under way comes again, flagged")
		os.Exit(exitFailure)
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
