// Command own-loop adds the library to an existing loop of kafka-go. One goroutine handles the
// messages in order, and calls FetchMessage and CommitMessages as before. It needs a Kafka broker
// with the topic:
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
	if err := check(ctx, brokers, topic); err != nil {
		return fmt.Errorf("%w\n%s", err, serverHint)
	}
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
		_ = d.Shutdown(closing) // no handler is running: the only goroutine has returned
	}()
	// A Reader can commit for a partition that it no longer owns (kafka-go #1398). Here that only
	// causes a redelivery, which is answered from the record. If you need several workers, use
	// kafkatransport.Consumer, which commits only for partitions that it owns.
	reader := kafka.NewReader(kafka.ReaderConfig{ //nolint:forbidigo // the loop of a user who has one
		Brokers: brokers, GroupID: group, Topic: topic, MaxWait: 250 * time.Millisecond,
		ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) { slog.Warn(fmt.Sprintf(format, args...)) }),
	})
	defer reader.Close()
	return loop(ctx, reader, d.Wrap(charge))
}

// check returns an error if no broker answers or the topic does not exist. A Reader would try
// again for a long time before it returned an error.
func check(ctx context.Context, brokers []string, topic string) error {
	sink, err := kafkatransport.NewSink(brokers, topic, nil)
	if err != nil {
		return err
	}
	defer sink.Close()
	return sink.Check(ctx)
}

// serverHint tells how to get the broker that the program needs.
const serverHint = `To try this program, start a broker in a checkout of oncequeue (needs Java 17 and Maven):
    scripts/kafka.sh start 4.0.0
Give the address in the last line of its output as -brokers. Create the topic with Kafka's own tool:
    kafka-topics.sh --bootstrap-server ADDRESS --create --topic orders`

// loop is a loop as you may have one, with one line changed: the call of handle.
func loop(ctx context.Context, reader *kafka.Reader, handle func(context.Context, *dedup.Message) error) error {
	for {
		m, err := reader.FetchMessage(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		// If handle returns nil, the message is settled: commit it and go on. An error means that
		// it is not settled: neither commit it nor go on, because the next commit would include
		// it. Stop, and the message is delivered again at the next start. If the error matches
		// dedup.ErrHalted, an operator must look before that.
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

// charge is the handler: here the money would move.
func charge(ctx context.Context, m *dedup.Message) ([]byte, error) {
	slog.InfoContext(ctx, "charged", "id", m.Claim.ID, "attempt", m.Claim.Attempt, "ambiguous", m.Claim.Ambiguous)
	return []byte("charged"), nil
}
