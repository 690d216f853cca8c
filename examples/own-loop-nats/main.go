// Command own-loop-nats adds the library to an existing program of nats.go. Its callback for Consume
// stays, and calls Do before it acknowledges. It needs a NATS server with JetStream, a stream and a
// durable consumer:
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
		return fmt.Errorf("connect to %s: %w\n%s", server, err, serverHint)
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

// consume is a loop as you may have one, with a call of Do in the callback. The client library calls
// the callback for one message after the other. If that is too slow, or if a handler takes longer
// than AckWait, use natstransport.Consumer: it handles many messages at once and tells the server
// that they are in progress.
func consume(ctx context.Context, js jetstream.JetStream, stream, durable string, d *dedup.Deduplicator) error {
	consumer, err := js.Consumer(ctx, stream, durable)
	if err != nil {
		return fmt.Errorf("consumer %s of stream %s: %w\n%s", durable, stream, err, serverHint)
	}
	halted := make(chan error, 1)
	// Messages wait in the client while another one is handled, and their AckWait runs. So only a
	// few may wait.
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		if err := handle(ctx, d, m); err != nil {
			select {
			case halted <- err:
			default: // an earlier error is reported
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
	// Messages that wait in the client are answered too. If ctx has ended, they are handed back.
	consuming.Drain()
	<-consuming.Closed()
	return errors.Join(err, js.Conn().Flush()) // the last answers
}

// serverHint tells how to get the server that the program needs.
const serverHint = `To try this program, start a server in a checkout of oncequeue:
    go run github.com/nats-io/nats-server/v2 -js
It listens on nats://127.0.0.1:4222, which is the default of -server. Then, with the nats tool:
    nats stream add ORDERS --subjects='orders.>' --defaults
    nats consumer add ORDERS billing --pull --ack=explicit --max-deliver=-1 --defaults`

// handle processes and answers one delivery. An error ends the loop: the connection is closed, or the
// Deduplicator says that an operator must look.
func handle(ctx context.Context, d *dedup.Deduplicator, m jetstream.Msg) error {
	message, err := natstransport.Message(m)
	if err != nil {
		return err
	}
	r := d.Do(ctx, message, charge)
	switch {
	case r.Settled(): // the result was recorded now or earlier
		return m.Ack()
	case r.Halt:
		return fmt.Errorf("message at %v: %w: %w", message.Position, dedup.ErrHalted, r.Err)
	case r.Outcome == dedup.Uncertain: // the handler ran: send no answer, so that AckWait passes first
		return nil
	}
	return m.NakWithDelay(max(r.RetryAfter, 20*time.Millisecond))
}

// charge is the handler: here the money would move.
func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
