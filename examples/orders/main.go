// Command orders shows a logistics flow whose keys span two hops and two brokers:
//
//	orders (Kafka) -> inventory: reserve the goods -> reservations (JetStream) -> carrier: book the transport
//
// Each hop is a process of its own with a store of its own. The reservation has the same idempotency
// key as its order, and each hop remembers the key under its own scope. Some orders are published
// again. Each process is killed with SIGKILL once, at the worst moment: after the effect of an order
// and before its record. Then the program counts how often the inventory and the carrier were asked
// for each order. Nothing needs to be installed but Go: the brokers run in the process.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func main() {
	ctx, stop := interruptible()
	defer stop()
	if isHop(os.Args[1:]) {
		os.Exit(runHop(ctx, os.Args[1:], os.Stderr))
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
}

// run is the whole command. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("orders", flag.ContinueOnError)
	flags.SetOutput(stderr)
	orders := flags.Int("orders", 5000, "orders to publish")
	seed := flags.Uint64("seed", rand.Uint64N(1_000_000), "seed of the duplicates")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	switch {
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "orders: unknown argument %q: see --help\n", flags.Arg(0))
		return 2
	case *orders < 10:
		fmt.Fprintf(stderr, "orders: --orders %d: publish 10 or more, so that there is a middle to be killed in\n", *orders)
		return 2
	}
	r, err := flow(ctx, *orders, *seed, stdout)
	if err != nil {
		fmt.Fprintln(stderr, "orders:", err)
		return 1
	}
	r.print(stdout)
	if !r.ok() {
		return 1
	}
	return 0
}

const (
	ordersTopic        = "orders"
	reservationsStream = "RESERVATIONS"
	reservationsNew    = "reservations.new"
)

// flow runs everything and returns the report.
func flow(ctx context.Context, orders int, seed uint64, stdout io.Writer) (r report, err error) {
	dir, err := os.MkdirTemp("", "oncequeue-orders-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	kafka, err := brokertest.StartKafka(map[string]int32{ordersTopic: 6}, nil)
	if err != nil {
		return r, err
	}
	defer kafka.Close()
	nats, err := brokertest.StartNATS(nil)
	if err != nil {
		return r, err
	}
	defer nats.Close()
	js, err := nats.Connect()
	if err != nil {
		return r, err
	}
	defer js.Conn().Close()
	consumer, err := createStream(ctx, js)
	if err != nil {
		return r, err
	}
	w, err := startWorld(map[string]int{inventory: orders / 2, carrier: orders / 4})
	if err != nil {
		return r, err
	}
	defer w.close()

	published := traffic(orders, seed)
	fmt.Fprintf(stdout, "seed %d: publishing %d orders, %d of them again\n", seed, orders, len(published)-orders)
	if err := kafka.Produce(ctx, false, published...); err != nil {
		return r, err
	}
	ctx, stop := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop(nil)
	failed := make(chan error, 2)
	for _, hop := range []string{inventory, carrier} {
		running.Go(func() {
			if err := supervise(ctx, w, hop, strings.Join(kafka.Addrs(), ","), nats.URL(), w.url, filepath.Join(dir, hop)); err != nil {
				failed <- err
				stop(err)
			}
		})
	}
	for _, hop := range []string{carrier, inventory} {
		if err := until(ctx, hop+" to be killed", func() bool { return w.killed(hop) }); err != nil {
			return r, err
		}
		fmt.Fprintf(stdout, "killed %s between an effect and its record\n", hop)
	}
	if err := until(ctx, inventory+" to commit everything", func() bool { return kafka.AllCommitted(inventory, ordersTopic) }); err != nil {
		return r, err
	}
	if err := until(ctx, carrier+" to acknowledge everything", func() bool {
		info, err := consumer.Info(ctx)
		return err == nil && info.NumPending == 0 && info.NumAckPending == 0
	}); err != nil {
		return r, err
	}
	stop(nil)
	running.Wait()
	select {
	case err := <-failed:
		return r, err
	default:
	}
	return report{orders, len(published), count(orders, w.effects(inventory)), count(orders, w.effects(carrier))}, nil
}

// createStream creates the stream between the hops, and its consumer.
func createStream(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: reservationsStream, Subjects: []string{"reservations.>"}}); err != nil {
		return nil, err
	}
	return js.CreateConsumer(ctx, reservationsStream, jetstream.ConsumerConfig{
		Durable: carrier, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1, AckWait: 3 * time.Second,
	})
}

// traffic returns so many orders, and a third of them a second time. Half of the duplicates follow
// their original at once, like a producer's retry. The other half come anywhere after it, in any
// partition.
func traffic(orders int, seed uint64) (records []*kgo.Record) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var later []*kgo.Record
	for i := range orders {
		key := orderKey(i)
		record := func() *kgo.Record {
			return &kgo.Record{
				Topic:   ordersTopic,
				Key:     fmt.Appendf(nil, "customer-%d", i%200),
				Value:   fmt.Appendf(nil, `{"order":%q,"parcels":%d}`, key, 1+i%5),
				Headers: []kgo.RecordHeader{{Key: dedup.HeaderIdempotencyKey, Value: []byte(key)}},
			}
		}
		records = append(records, record())
		switch rng.IntN(6) {
		case 0:
			records = append(records, record())
		case 1:
			again := record()
			again.Key = nil
			later = append(later, again)
		}
		if len(later) > 0 && rng.IntN(8) == 0 {
			records, later = append(records, later[0]), later[1:]
		}
	}
	return append(records, later...)
}

func orderKey(i int) string { return fmt.Sprintf("order-%06d", i) }

// until waits for the condition, for three minutes at most.
func until(ctx context.Context, what string, condition func() bool) error {
	const limit = 3 * time.Minute
	deadline := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("waited %v for %s", limit, what)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
