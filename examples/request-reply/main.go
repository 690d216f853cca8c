// Command request-reply is a NATS service whose requests take effect once. If a request is sent
// again, because its reply was late or got lost, it gets the recorded reply. It needs a NATS server:
//
//	go run ./examples/request-reply -server nats://localhost:4222
//	nats request orders.place '{"cents":100}' -H Idempotency-Key:order-1
//	nats request orders.place '{"cents":100}' -H Idempotency-Key:order-1   # the same reply, and no second order
//	nats request orders.place '{"cents":999}' -H Idempotency-Key:order-1   # 422
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

func main() {
	server := flag.String("server", nats.DefaultURL, "URL of the server")
	dir := flag.String("state", "orders-state", "directory of the store")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *server, *dir, func() {}); err != nil {
		fmt.Fprintln(os.Stderr, "request-reply:", err)
		os.Exit(1)
	}
}

// run serves requests until ctx ends. It calls ready when it takes requests.
func run(ctx context.Context, server, dir string, ready func()) error {
	logger := slog.Default()
	conn, err := nats.Connect(server, nats.MaxReconnects(-1)) // never give up
	if err != nil {
		return fmt.Errorf("connect to %s: %w\n%s", server, err, serverHint)
	}
	defer conn.Close()
	store, err := boltstore.Open(dir, &boltstore.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := dedup.New(store, "orders.place", dedup.HeaderKey(), &dedup.Options{Logger: logger})
	if err != nil {
		return err
	}
	reply, err := natstransport.NewReply(conn, d, place, &natstransport.ReplyConfig{Logger: logger})
	if err != nil {
		return err
	}
	service, err := micro.AddService(conn, micro.Config{Name: "orders", Version: "1.0.0"})
	if err != nil {
		return err
	}
	if err := service.AddEndpoint("place", reply, micro.WithEndpointSubject("orders.place")); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	// First stop to take requests, then wait for the handlers, then close the store.
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(service.Stop(), reply.Shutdown(closing), d.Shutdown(closing))
}

// serverHint tells how to get the server that the program needs.
const serverHint = `To try this program, start a server in a checkout of oncequeue:
    go run github.com/nats-io/nats-server/v2
It listens on nats://127.0.0.1:4222, which is the default of -server.`

// place is the handler: here the order would be made.
func place(ctx context.Context, m *dedup.Message) ([]byte, error) {
	var order struct{ Cents int64 }
	if err := json.Unmarshal(m.Value, &order); err != nil || order.Cents <= 0 {
		// Permanent: the error is recorded like a result. The same request gets it again.
		return nil, dedup.Permanent(&natstransport.ServiceError{Code: "400", Description: "no order: cents must be positive"})
	}
	slog.InfoContext(ctx, "placed", "id", m.Claim.ID, "cents", order.Cents, "ambiguous", m.Claim.Ambiguous)
	return fmt.Appendf(nil, `{"order":%d}`, m.Claim.Token), nil
}
