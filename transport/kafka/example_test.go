package kafkatransport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

func ship(context.Context, []byte) error { return nil }

// A consumer group whose handler runs once for each order.
func ExampleConsumer_Run() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	d, err := dedup.New(memstore.New(nil), "shipping", dedup.JSONKey("order.id"), nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := kafkatransport.NewConsumer([]string{"localhost:9092"}, "shipping", []string{"orders"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = c.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		return nil, ship(ctx, m.Value)
	})
	if err != nil {
		log.Fatal(err)
	}
}

// A broker that wants TLS and a password.
func ExampleSecurity() {
	password, err := scram.Mechanism(scram.SHA512, "shipping", os.Getenv("KAFKA_PASSWORD"))
	if err != nil {
		log.Fatal(err)
	}
	c, err := kafkatransport.NewConsumer([]string{"kafka.example.org:9093"}, "shipping", []string{"orders"}, &kafkatransport.Config{
		Security: kafkatransport.Security{TLS: &tls.Config{}, SASL: password},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := c.Check(context.Background()); err != nil {
		log.Fatal(err) // one line: what is wrong, and what to do
	}
}

// A read loop of one's own, in order: on an error neither commit nor go on.
func ExampleMessage() {
	d, err := dedup.New(memstore.New(nil), "shipping", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	process := d.Wrap(func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		return nil, ship(ctx, m.Value)
	})
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{"localhost:9092"}, GroupID: "shipping", Topic: "orders"})
	for ctx := context.Background(); ; {
		m, err := r.FetchMessage(ctx)
		if err == nil {
			err = process(ctx, kafkatransport.Message(&m))
		}
		if err == nil {
			err = r.CommitMessages(ctx, m)
		}
		if err != nil {
			log.Fatal(errors.Join(err, r.Close()))
		}
	}
}

// A sink confirms each message, or says what is known of it.
func ExampleSink_Publish() {
	s, err := kafkatransport.NewSink([]string{"localhost:9092"}, "shipments", nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Key: []byte("customer-7"), Value: []byte(`{"order":1}`)}
	m.Headers.SetKey("order-1")
	for _, err := range s.Publish(context.Background(), []*dedup.Message{m}) {
		if err != nil {
			log.Print(err)
		}
	}
	if err := s.Close(); err != nil {
		log.Print(err)
	}
}
