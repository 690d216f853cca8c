// Command demo shows on your machine that the promise holds. Nothing needs to be installed but Go,
// and it has to be run in a checkout. It starts a broker in its own process and the real dedup-relay
// in another one. It publishes orders, many of them several times, and kills the relay with SIGKILL
// again and again. Then it counts the orders that the relay published.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

type options struct {
	broker   string // kind of the source
	to       string // kind of the target
	messages int
	kills    int
	seed     uint64
	json     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole command. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.broker, "broker", "kafka", "broker to run on: kafka or nats")
	flags.IntVar(&o.messages, "messages", 50_000, "messages to publish")
	flags.IntVar(&o.kills, "kills", 3, "how often to kill the relay")
	flags.Uint64Var(&o.seed, "seed", rand.Uint64N(1_000_000), "seed of the traffic and the kills")
	flags.BoolVar(&o.json, "json", false, "print the result as one JSON object, last")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	o.to = o.broker
	return tell(ctx, o, flags.Args(), stdout, stderr)
}

// tell runs the demo and prints the report.
func tell(ctx context.Context, o options, args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) > 0:
		fmt.Fprintf(stderr, "demo: unknown argument %q: see --help\n", args[0])
		return 2
	case o.broker != "kafka" && o.broker != "nats":
		fmt.Fprintf(stderr, "demo: --broker %q: it runs on kafka or nats\n", o.broker)
		return 2
	case o.messages < 1 || o.kills < 0 || o.messages < o.kills:
		fmt.Fprintf(stderr, "demo: --messages %d, --kills %d: there must be a message, and one for each kill\n", o.messages, o.kills)
		return 2
	}
	r, err := demo(ctx, o, newProgress(stdout))
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 1
	}
	r.print(stdout)
	if o.json {
		if err := json.NewEncoder(stdout).Encode(r); err != nil {
			return 1
		}
	}
	if r.Lost > 0 || r.unflagged > 0 || r.unknown > 0 {
		return 1
	}
	return 0
}

// demo runs everything and returns the report.
func demo(ctx context.Context, o options, p *progress) (r report, err error) {
	dir, err := os.MkdirTemp("", "oncequeue-demo-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	p.say("building dedup-relay")
	binary, err := build(ctx, dir)
	if err != nil {
		return r, err
	}
	b, err := startBroker(ctx, o.broker)
	if err != nil {
		return r, err
	}
	defer b.Close()
	target := b
	if o.to != o.broker {
		if target, err = startBroker(ctx, o.to); err != nil {
			return r, err
		}
		defer target.Close()
	}
	relay := relayProcess{binary: binary, args: []string{
		"run", "--from", b.source(), "--to", target.target(), "--store", "bolt:" + dir + "/state", "--listen", "",
		"--vouch-from", time.Unix(0, 0).UTC().Format(time.RFC3339), // the topic is new: nobody has relayed a message of it
	}}
	defer relay.kill()
	p.say(fmt.Sprintf("seed %d: %d messages, 30 %% of them an order that was published before, through %s", o.seed, o.messages, b.name()))
	traffic := newTraffic(o.messages, o.seed)
	start := time.Now()
	if err := relay.start(); err != nil {
		return r, err
	}
	if err := play(ctx, o, traffic, b, &relay, p); err != nil {
		return r, err
	}
	if err := drain(ctx, b, &relay, p); err != nil {
		return r, err
	}
	took := time.Since(start)
	if err := relay.stop(); err != nil {
		return r, err
	}
	out, err := target.output(ctx)
	if err != nil {
		return r, err
	}
	r = check(traffic, out)
	r.Broker, r.Kills, r.Seconds = o.broker, relay.kills, took.Seconds()
	return r, nil
}

// play publishes the traffic in one part more than there are kills. It kills the relay somewhere in
// the middle of each part except the last one.
func play(ctx context.Context, o options, t *traffic, b broker, relay *relayProcess, p *progress) error {
	rng := rand.New(rand.NewPCG(o.seed, 0))
	const chunk, burst = 200, 2000
	parts := o.kills + 1
	for part := range parts {
		from, to := o.messages*part/parts, o.messages*(part+1)/parts
		killAt := -1
		if part < o.kills {
			killAt = from + (to-from)*(30+rng.IntN(60))/100
		}
		if part > 0 {
			// The new relay first waits for the partitions of the killed one. A kill in that
			// time would show nothing, so wait until it works.
			if err := until(ctx, 2*time.Minute, "the relay to take up its work", func() (bool, error) {
				return b.moved(), relay.alive()
			}); err != nil {
				return err
			}
		}
		for at := from; at < to; {
			end := min(at+chunk, to)
			hit := killAt >= at && killAt < end
			if hit {
				end = min(at+burst, to)
			}
			published := make(chan error, 1)
			go func() { published <- b.publish(ctx, t.orders[at:end]) }()
			if hit {
				<-time.After(time.Duration(5+rng.IntN(20)) * time.Millisecond) // in the middle of the burst
				relay.kill()
			}
			if err := <-published; err != nil {
				return err
			}
			p.bar("publishing", end, o.messages)
			if hit {
				p.say(fmt.Sprintf("killed the relay, with %d orders published", end))
				b.mark()
				if err := relay.start(); err != nil {
					return err
				}
			}
			if err := relay.alive(); err != nil {
				return err
			}
			at = end
		}
	}
	return nil
}

// drain waits until the relay has committed everything.
func drain(ctx context.Context, b broker, relay *relayProcess, p *progress) error {
	return until(ctx, 5*time.Minute, "the relay to drain", func() (bool, error) {
		done, all := b.committed()
		p.bar("draining", done, all)
		return done == all, relay.alive()
	})
}

// until polls for a condition.
func until(ctx context.Context, limit time.Duration, what string, condition func() (bool, error)) error {
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := condition(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("waited %v for %s", limit, what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
