// Command own-loop-nats adds the library to a nats.go program that exists already:
// its Consume callback stays, and asks Do before it acknowledges. It needs a NATS
// server with a stream and a consumer:
//
//	nats stream add ORDERS --subjects='orders.>' --defaults
//	nats consumer add ORDERS billing --pull --ack=explicit --max-deliver=-1 --defaults
//	go run ./examples/own-loop-nats -server nats://localhost:4222 -stream ORDERS -consumer billing
package main

import (
	"context"
	"errors"
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
		fmt.Fprintln(os.Stderr, "own-loop-nats:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, stream, durable, dir string) error {
	conn, err := nats.Connect(server, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := dedup.New(store, durable, dedup.HeaderKey(), &dedup.Options{Logger: slog.Default()})
	if err != nil {
		return err
	}
	err = consume(ctx, js, stream, durable, d)
	closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(err, d.Shutdown(closing))
}

// consume is the user's own, with Do in it. The callback is called for one message
// after the other. What is too slow, or takes longer than AckWait, wants
// natstransport.Consumer, which runs many at once and keeps them alive.
func consume(ctx context.Context, js jetstream.JetStream, stream, durable string, d *dedup.Deduplicator) error {
	consumer, err := js.Consumer(ctx, stream, durable)
	if err != nil {
		return err
	}
	halted := make(chan error, 1)
	// A message waits in the client while others are handled, and its AckWait runs:
	// few of them should.
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		if err := handle(ctx, d, m); err != nil {
			select {
			case halted <- err:
			default: // told already
			}
		}
	}, jetstream.PullMaxMessages(16))
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err = <-halted:
	case <-consuming.Closed():
		return errors.New("the consumer was deleted, or the connection closed")
	}
	consuming.Drain() // what waits in the client is answered too: once ctx has ended, handed back
	<-consuming.Closed()
	return errors.Join(err, js.Conn().Flush()) // the last answers
}

// handle answers one delivery. An error ends the loop: the connection is closed, or
// the Deduplicator says that an operator must look.
func handle(ctx context.Context, d *dedup.Deduplicator, m jetstream.Msg) error {
	message, err := natstransport.Message(m)
	if err != nil {
		return err
	}
	r := d.Do(ctx, message, charge)
	switch {
	case r.Settled(): // recorded now, or before
		return m.Ack()
	case r.Halt:
		return fmt.Errorf("message at %v: %w: %w", message.Position, dedup.ErrHalted, r.Err)
	case r.Outcome == dedup.Uncertain: // it ran; let AckWait pass before it is looked at again
		return nil
	}
	return m.NakWithDelay(max(r.RetryAfter, 20*time.Millisecond))
}

func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
