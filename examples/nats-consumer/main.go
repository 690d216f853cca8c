// Command nats-consumer embeds the library. It is a member of a durable JetStream consumer, and its
// handler runs once for each order. It needs a NATS server with JetStream, a stream and a durable
// consumer:
//
//	nats stream add ORDERS --subjects='orders.>' --defaults
//	nats consumer add ORDERS billing --pull --ack=explicit --max-deliver=-1 --defaults
//	go run ./examples/nats-consumer -server nats://localhost:4222 -stream ORDERS -consumer billing
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

func main() {
	server := flag.String("server", nats.DefaultURL, "URL of the server")
	stream := flag.String("stream", "ORDERS", "stream to consume")
	durable := flag.String("consumer", "billing", "its durable consumer")
	dir := flag.String("state", "billing-state", "directory of the store")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *server, *stream, *durable, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "nats-consumer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, stream, durable, dir string) error {
	logger := slog.Default()
	conn, err := nats.Connect(server, nats.MaxReconnects(-1)) // never give up
	if err != nil {
		return fmt.Errorf("connect to %s: %w\n%s", server, err, serverHint)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	consumer, err := natstransport.NewConsumer(js, stream, durable, &natstransport.Config{Logger: logger})
	if err != nil {
		return err
	}
	if err := consumer.Check(ctx); err != nil {
		return err
	}
	store, err := boltstore.Open(dir, &boltstore.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := dedup.New(store, durable, dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("order.id")), &dedup.Options{Logger: logger})
	if err != nil {
		return err
	}
	runErr := consumer.Run(ctx, d, charge) // until a signal comes; then it drains
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.Shutdown(closing); err != nil {
		return err
	}
	return runErr
}

// serverHint tells how to get the server that the program needs.
const serverHint = `To try this program, start a server in a checkout of oncequeue:
    go run github.com/nats-io/nats-server/v2 -js
It listens on nats://127.0.0.1:4222, which is the default of -server. Then, with the nats tool:
    nats stream add ORDERS --subjects='orders.>' --defaults
    nats consumer add ORDERS billing --pull --ack=explicit --max-deliver=-1 --defaults`

// charge is the handler: here the money would move. Pass m.Claim.ID to a payment system that refuses
// an id that it has seen. Then the money moves once, even after a crash.
func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	var order struct {
		Order struct{ Cents int64 }
	}
	if err := json.Unmarshal(m.Value, &order); err != nil {
		return nil, dedup.Permanent(fmt.Errorf("not an order: %w", err)) // to try again is useless
	}
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "cents", order.Order.Cents, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
