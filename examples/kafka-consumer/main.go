// Command kafka-consumer embeds the library. It is a member of a consumer group, and its handler
// runs once for each order. It needs a Kafka broker with the topic:
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
		return fmt.Errorf("%w\n%s", err, serverHint)
	}
	runErr := consumer.Run(ctx, d, charge) // until a signal comes; then it drains
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(runErr, d.Shutdown(closing))
}

// serverHint tells how to get the broker that the program needs.
const serverHint = `To try this program, start a broker in a checkout of oncequeue (needs Java 17 and Maven):
    scripts/kafka.sh start 4.0.0
Give the address in the last line of its output as -brokers. Create the topic with Kafka's own tool:
    kafka-topics.sh --bootstrap-server ADDRESS --create --topic orders`

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
