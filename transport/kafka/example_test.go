package kafkatransport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// startBroker starts a broker in this process, with the topic orders and a message for each key, all
// of one customer.
func startBroker(keys ...string) *brokertest.Kafka {
	k, err := brokertest.StartKafka(map[string]int32{"orders": 1, "orders.dead": 1}, nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range keys {
		err := k.Produce(context.Background(), false, &kgo.Record{
			Topic: "orders", Key: []byte("customer-7"), Value: []byte(key),
			Headers: []kgo.RecordHeader{{Key: dedup.HeaderIdempotencyKey, Value: []byte(key)}},
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	return k
}

// newDeduplicator returns a Deduplicator over a new store, and shuts it down with the returned
// function.
func newDeduplicator(o *dedup.Options) (*dedup.Deduplicator, func()) {
	d, err := dedup.New(memstore.New(nil), "shipping", dedup.HeaderKey(), o)
	if err != nil {
		log.Fatal(err)
	}
	return d, func() { _ = d.Shutdown(context.Background()) }
}

// untilCommitted returns a context that ends when the group has committed the topic orders.
func untilCommitted(k *brokertest.Kafka, group string) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	go func() {
		defer stop()
		if err := k.AwaitCommitted(ctx, group, "orders"); err != nil {
			log.Print(err)
		}
	}()
	return ctx
}

// A member of a consumer group. Its handler runs once for each order, although order-1 is in the topic
// twice.
func ExampleConsumer_Run() {
	k := startBroker("order-1", "order-2", "order-1")
	defer k.Close()
	d, shutdown := newDeduplicator(nil)
	defer shutdown()

	c, err := kafkatransport.NewConsumer(k.Addrs(), "shipping", []string{"orders"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := untilCommitted(k, "shipping") // in production until a signal: signal.NotifyContext
	err = c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Printf("shipped %s of %s\n", m.Value, m.Key)
		return nil, nil
	})
	fmt.Println("drained:", err)
	fmt.Println("committed:", k.Committed("shipping", "orders"))
	// Output:
	// shipped order-1 of customer-7
	// shipped order-2 of customer-7
	// drained: <nil>
	// committed: map[0:3]
}

// A handler for whole batches. It returns an Answer for each message.
func ExampleConsumer_RunBatch() {
	k := startBroker("order-1", "order-2", "order-1")
	defer k.Close()
	d, shutdown := newDeduplicator(nil)
	defer shutdown()

	c, err := kafkatransport.NewConsumer(k.Addrs(), "shipping", []string{"orders"}, &kafkatransport.Config{BatchSize: 100})
	if err != nil {
		log.Fatal(err)
	}
	err = c.RunBatch(untilCommitted(k, "shipping"), d, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := make([]dedup.Answer, len(ms))
		for i, m := range ms {
			fmt.Println("shipped", string(m.Value))
			answers[i].Result = []byte("shipped")
		}
		return answers
	})
	fmt.Println("drained:", err)
	// Output:
	// shipped order-1
	// shipped order-2
	// drained: <nil>
}

// Check says at once what Run would wait for.
func ExampleConsumer_Check() {
	k := startBroker()
	defer k.Close()
	for _, topic := range []string{"orders", "invoices"} {
		c, err := kafkatransport.NewConsumer(k.Addrs(), "shipping", []string{topic}, nil)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(topic, "is there:", c.Check(context.Background()) == nil)
	}
	// Output:
	// orders is there: true
	// invoices is there: false
}

// Stats can be read while Run is under way.
func ExampleConsumer_Stats() {
	k := startBroker("order-1", "order-2", "order-1")
	defer k.Close()
	d, shutdown := newDeduplicator(nil)
	defer shutdown()
	c, err := kafkatransport.NewConsumer(k.Addrs(), "shipping", []string{"orders"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		<-untilCommitted(k, "shipping").Done()
		for _, p := range c.Stats().Partitions {
			fmt.Printf("%s/%d: settled before offset %d, lag %d\n", p.Topic, p.Partition, p.Watermark, p.Lag())
		}
	}()
	err = c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) { return nil, nil })
	if err != nil {
		log.Fatal(err)
	}
	// Output: orders/0: settled before offset 3, lag 0
}

// Brokers that want TLS and a password.
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
		log.Fatal(err) // the error says in one line how to mend it
	}
}

// A read loop of your own: process the messages in order. After an error, neither commit nor go on.
func ExampleMessage() {
	ctx := context.Background()
	k := startBroker("order-1", "order-2", "order-1")
	defer k.Close()
	d, shutdown := newDeduplicator(nil)
	defer shutdown()
	process := d.Wrap(func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("shipped", string(m.Value))
		return nil, nil
	})

	r := kafka.NewReader(kafka.ReaderConfig{Brokers: k.Addrs(), GroupID: "shipping", Topic: "orders", MaxWait: 100 * time.Millisecond})
	for range 3 { // in production until a signal
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
		fmt.Println("committed offset", m.Offset)
	}
	if err := r.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// shipped order-1
	// committed offset 0
	// shipped order-2
	// committed offset 1
	// committed offset 2
}

// A Sink returns an error for each message: nil when all in-sync replicas have it.
func ExampleSink_Publish() {
	ctx := context.Background()
	k := startBroker()
	defer k.Close()
	s, err := kafkatransport.NewSink(k.Addrs(), "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Key: []byte("customer-7"), Value: []byte("order-1")}
	m.Headers.SetKey("order-1")
	for _, err := range s.Publish(ctx, []*dedup.Message{m}) {
		if err != nil {
			log.Print(err) // marked Transient, MaybeDone or Permanent
		}
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}

	records, err := k.ReadTopic(ctx, "orders")
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range records {
		fmt.Printf("%s: %s, %s %s\n", r.Key, r.Value, r.Headers[0].Key, r.Headers[0].Value)
	}
	// Output: customer-7: order-1, Idempotency-Key order-1
}

// Messages that cannot be processed go to a topic of their own, with the reason in their headers.
func Example_deadLetters() {
	k := startBroker("order-1")
	defer k.Close()
	dead, err := kafkatransport.NewSink(k.Addrs(), "orders.dead", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer dead.Close()
	d, shutdown := newDeduplicator(&dedup.Options{DeadLetter: dedup.DeadLetters(dead.Publish)})
	defer shutdown()
	c, err := kafkatransport.NewConsumer(k.Addrs(), "shipping", []string{"orders"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	err = c.Run(untilCommitted(k, "shipping"), d, func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.Permanent(errors.New("no such customer"))
	})
	if err != nil {
		log.Fatal(err)
	}

	letters, err := k.ReadTopic(context.Background(), "orders.dead")
	if err != nil {
		log.Fatal(err)
	}
	for _, l := range letters {
		fmt.Println(string(l.Value))
		for _, h := range l.Headers {
			fmt.Printf("  %s: %s\n", h.Key, h.Value)
		}
	}
	// Output:
	// order-1
	//   Idempotency-Key: order-1
	//   Dedup-Error: no such customer
	//   Dedup-Attempts: 1
	//   Dedup-Source: orders/0@0
}
