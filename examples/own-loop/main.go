// Command own-loop adds the library to a kafka-go loop that exists already: one
// goroutine, in order, FetchMessage and CommitMessages as before. It needs a
// Kafka broker:
//
//	go run ./examples/own-loop -brokers localhost:9092 -topic orders -group billing
package main

import (
	"context"
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
	"github.com/segmentio/kafka-go"
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
		fmt.Fprintln(os.Stderr, "own-loop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, brokers []string, topic, group, dir string) error {
	store, err := boltstore.Open(dir, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	d, err := dedup.New(store, group, dedup.HeaderKey(), &dedup.Options{Logger: slog.Default()})
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = d.Shutdown(closing) // one goroutine, and it has returned: nothing runs
	}()
	// A Reader can commit for a partition it has lost (kafka-go #1398). Here that
	// costs a redelivery, which is answered from the record. For several workers
	// use kafkatransport.Consumer, which commits only what it owns.
	reader := kafka.NewReader(kafka.ReaderConfig{ //nolint:forbidigo // the loop of a user who has one
		Brokers: brokers, GroupID: group, Topic: topic, MaxWait: 250 * time.Millisecond,
		ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) { slog.Warn(fmt.Sprintf(format, args...)) }),
	})
	defer reader.Close()
	return loop(ctx, reader, d.Wrap(charge))
}

// loop is the user's own, with one line changed.
func loop(ctx context.Context, reader *kafka.Reader, handle func(context.Context, *dedup.Message) error) error {
	for {
		m, err := reader.FetchMessage(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		// nil: the result is recorded, or was before; go on and commit. An error
		// means that the message is not settled: neither commit nor go on, because
		// a later commit would cover it. Stop, and it is delivered again at the next
		// start; ErrHalted says that an operator must look first.
		if err := handle(ctx, kafkatransport.Message(&m)); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := reader.CommitMessages(ctx, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
