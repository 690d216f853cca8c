// Command dedup-relay moves messages between two topics and drops duplicates.
package main

import (
	"context"
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
		cancel() // drain
		<-signals
		os.Exit(exitFailure) // an operator who asks twice means now
	}()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
