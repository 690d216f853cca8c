// Command request-reply is a NATS service whose requests take effect once: a
// request that is sent again, because its reply was late or lost, gets the
// recorded reply. It needs a NATS server:
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

// run serves until ctx ends. It calls ready once it takes requests.
func run(ctx context.Context, server, dir string, ready func()) error {
	logger := slog.Default()
	conn, err := nats.Connect(server, nats.MaxReconnects(-1)) // never give up
	if err != nil {
		return err
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
	// First no more requests, then no more work, then no more store.
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(service.Stop(), reply.Shutdown(closing), d.Shutdown(closing))
}

// place is where the order is made.
func place(ctx context.Context, m *dedup.Message) ([]byte, error) {
	var order struct{ Cents int64 }
	if err := json.Unmarshal(m.Value, &order); err != nil || order.Cents <= 0 {
		// An answer like any other: who asks again gets it again.
		return nil, dedup.Permanent(&natstransport.ServiceError{Code: "400", Description: "no order: cents must be positive"})
	}
	slog.InfoContext(ctx, "placed", "id", m.Claim.ID, "cents", order.Cents, "ambiguous", m.Claim.Ambiguous)
	return fmt.Appendf(nil, `{"order":%d}`, m.Claim.Token), nil
}
