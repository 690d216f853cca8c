// Command kafka-consumer embeds the library: a consumer group member whose
// handler runs once for each order. It needs a Kafka broker:
//
//	go run ./examples/kafka-consumer -brokers localhost:9092 -topic orders -group billing
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
	"strings"
	"syscall"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

func main() {
	brokers := flag.String("brokers", "localhost:9092", "HOST:PORT, comma-separated")
	topic := flag.String("topic", "orders", "topic to consume")
	group := flag.String("group", "billing", "consumer group")
	dir := flag.String("state", "billing-state", "directory of the store")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, strings.Split(*brokers, ","), *topic, *group, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "kafka-consumer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, brokers []string, topic, group, dir string) error {
	logger := slog.Default()
	store, err := boltstore.Open(dir, &boltstore.Options{Logger: logger})
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := dedup.New(store, group, dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("order.id")), &dedup.Options{Logger: logger})
	if err != nil {
		return err
	}
	consumer, err := kafkatransport.NewConsumer(brokers, group, []string{topic}, &kafkatransport.Config{Logger: logger})
	if err != nil {
		return err
	}
	if err := consumer.Check(ctx); err != nil {
		return err
	}
	runErr := consumer.Run(ctx, d, charge) // until a signal; then it drains
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(runErr, d.Shutdown(closing))
}

// charge is where the money moves. Hand the token or the id to a system that
// can refuse what it has seen, and the effect is exactly once even over a crash.
func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	var order struct {
		Order struct{ Cents int64 }
	}
	if err := json.Unmarshal(m.Value, &order); err != nil {
		return nil, dedup.Permanent(fmt.Errorf("not an order: %w", err)) // no use trying again
	}
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "cents", order.Order.Cents, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
