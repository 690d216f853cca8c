package natstransport_test

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

func ship(context.Context, []byte) error { return nil }

func connect() jetstream.JetStream {
	conn, err := nats.Connect(nats.DefaultURL, nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	return js
}

// A member of a durable consumer whose handler runs once for each order.
func ExampleConsumer_Run() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	d, err := dedup.New(memstore.New(nil), "shipping", dedup.JSONKey("order.id"), nil)
	if err != nil {
		log.Fatal(err)
	}
	c, err := natstransport.NewConsumer(connect(), "ORDERS", "shipping", nil)
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

// A callback of one's own: acknowledge what is settled, hand back the rest.
func ExampleMessage() {
	d, err := dedup.New(memstore.New(nil), "shipping", dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	c, err := connect().Consumer(ctx, "ORDERS", "shipping")
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Consume(func(raw jetstream.Msg) {
		m, err := natstransport.Message(raw)
		if err != nil {
			log.Fatal(err)
		}
		r := d.Do(ctx, m, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
			return nil, ship(ctx, m.Value)
		})
		switch {
		case r.Settled():
			err = raw.Ack()
		case r.Halt:
			log.Fatal(r.Err)
		default:
			err = raw.NakWithDelay(r.RetryAfter)
		}
		if err != nil {
			log.Print(err) // it comes again
		}
	}, jetstream.PullMaxMessages(16))
	if err != nil {
		log.Fatal(err)
	}
}

// A sink confirms each message, or says what is known of it.
func ExampleSink_Publish() {
	s, err := natstransport.NewSink(connect(), "shipments.new", nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Value: []byte(`{"order":1}`)}
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
