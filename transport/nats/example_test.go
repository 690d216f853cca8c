package natstransport_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

// The stream and the durable consumer of the examples.
var (
	streamConfig   = jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}
	consumerConfig = jetstream.ConsumerConfig{Durable: "shipping", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: -1}
)

// connect starts a server in this process and connects to it. The returned function ends both.
func connect() (jetstream.JetStream, func()) {
	n, err := brokertest.StartNATS(nil)
	if err != nil {
		log.Fatal(err)
	}
	js, err := n.Connect()
	if err != nil {
		log.Fatal(err)
	}
	return js, func() {
		js.Conn().Close()
		n.Close()
	}
}

// publish creates the stream and the durable consumer, and publishes a message for each key.
func publish(js jetstream.JetStream, keys ...string) jetstream.Consumer {
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, streamConfig); err != nil {
		log.Fatal(err)
	}
	consumer, err := js.CreateConsumer(ctx, "ORDERS", consumerConfig)
	if err != nil {
		log.Fatal(err)
	}
	for _, key := range keys {
		m := &nats.Msg{Subject: "orders.new", Data: []byte(key), Header: nats.Header{dedup.HeaderIdempotencyKey: {key}}}
		if _, err := js.PublishMsg(ctx, m); err != nil {
			log.Fatal(err)
		}
	}
	return consumer
}

// untilAcknowledged returns a context that ends when all messages of the consumer are acknowledged.
func untilAcknowledged(consumer jetstream.Consumer) context.Context {
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	go func() {
		defer stop()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			info, err := consumer.Info(ctx)
			if err != nil {
				log.Print(err)
				return
			}
			if info.NumPending == 0 && info.NumAckPending == 0 {
				return
			}
		}
	}()
	return ctx
}

// newDeduplicator returns a Deduplicator over a new store, and shuts it down with the returned
// function.
func newDeduplicator(scope string) (*dedup.Deduplicator, func()) {
	d, err := dedup.New(memstore.New(nil), scope, dedup.HeaderKey(), nil)
	if err != nil {
		log.Fatal(err)
	}
	return d, func() { _ = d.Shutdown(context.Background()) }
}

// A member of a durable consumer. Its handler runs once for each order, although order-1 is in the
// stream twice. There is no order.
func ExampleConsumer_Run() {
	js, end := connect()
	defer end()
	durable := publish(js, "order-1", "order-2", "order-1")
	d, shutdown := newDeduplicator("shipping")
	defer shutdown()

	c, err := natstransport.NewConsumer(js, "ORDERS", "shipping", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := untilAcknowledged(durable) // in production until a signal: signal.NotifyContext
	err = c.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println("shipped", string(m.Value))
		return nil, nil
	})
	fmt.Println("drained:", err)
	// Unordered output:
	// shipped order-1
	// shipped order-2
	// drained: <nil>
}

// A handler for whole batches. It returns an Answer for each message.
func ExampleConsumer_RunBatch() {
	js, end := connect()
	defer end()
	durable := publish(js, "order-1", "order-2", "order-1")
	d, shutdown := newDeduplicator("shipping")
	defer shutdown()

	c, err := natstransport.NewConsumer(js, "ORDERS", "shipping", &natstransport.Config{BatchSize: 100})
	if err != nil {
		log.Fatal(err)
	}
	err = c.RunBatch(untilAcknowledged(durable), d, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := make([]dedup.Answer, len(ms))
		for i, m := range ms {
			fmt.Println("shipped", string(m.Value))
			answers[i].Result = []byte("shipped")
		}
		return answers
	})
	fmt.Println("drained:", err)
	// Unordered output:
	// shipped order-1
	// shipped order-2
	// drained: <nil>
}

// Ensure creates the stream and the durable consumer if nobody else has created them.
func ExampleConsumer_Ensure() {
	ctx := context.Background()
	js, end := connect()
	defer end()
	c, err := natstransport.NewConsumer(js, "ORDERS", "shipping", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready:", c.Check(ctx) == nil)
	err = c.Ensure(ctx,
		jetstream.StreamConfig{Subjects: []string{"orders.>"}},
		jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, AckWait: 10 * time.Second},
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready:", c.Check(ctx) == nil)
	// Output:
	// ready: false
	// ready: true
}

// Messages with the same third token are handled in the order of the stream.
func ExampleConfig_orderBy() {
	js, end := connect()
	defer end()
	durable := publish(js)
	for _, event := range []string{"placed", "paid", "packed"} {
		m := &nats.Msg{Subject: "orders.eu.42", Data: []byte(event), Header: nats.Header{dedup.HeaderIdempotencyKey: {"42 " + event}}}
		if _, err := js.PublishMsg(context.Background(), m); err != nil {
			log.Fatal(err)
		}
	}
	d, shutdown := newDeduplicator("shipping")
	defer shutdown()
	c, err := natstransport.NewConsumer(js, "ORDERS", "shipping", &natstransport.Config{OrderBy: natstransport.OrderByToken(3)})
	if err != nil {
		log.Fatal(err)
	}
	err = c.Run(untilAcknowledged(durable), d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		fmt.Println(m.Topic, string(m.Value))
		return nil, nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// orders.eu.42 placed
	// orders.eu.42 paid
	// orders.eu.42 packed
}

// The order key is a token of the subject, counted from 1.
func ExampleOrderByToken() {
	order := natstransport.OrderByToken(3)
	fmt.Printf("%q %q\n", order(&dedup.Message{Topic: "orders.eu.42"}), order(&dedup.Message{Topic: "orders.eu"}))
	// Output: "42" ""
}

// The order key is the value of a header. A message without it has no order.
func ExampleOrderByHeader() {
	order := natstransport.OrderByHeader("Customer")
	m := &dedup.Message{}
	fmt.Printf("%q\n", order(m))
	m.Headers.Set("Customer", []byte("c-7"))
	fmt.Printf("%q\n", order(m))
	// Output:
	// ""
	// "c-7"
}

// A loop of your own: acknowledge a message that is settled, and hand back the others.
func ExampleMessage() {
	ctx := context.Background()
	js, end := connect()
	defer end()
	durable := publish(js, "order-1", "order-2", "order-1")
	d, shutdown := newDeduplicator("shipping")
	defer shutdown()

	batch, err := durable.Fetch(3)
	if err != nil {
		log.Fatal(err)
	}
	for raw := range batch.Messages() {
		m, err := natstransport.Message(raw)
		if err != nil {
			log.Fatal(err)
		}
		r := d.Do(ctx, m, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			fmt.Println("shipped", string(m.Value))
			return nil, nil
		})
		fmt.Println(m.Position, r.Outcome)
		switch {
		case r.Settled():
			err = raw.Ack()
		case r.Halt:
			log.Fatal(r.Err) // an operator must look
		default:
			err = raw.NakWithDelay(r.RetryAfter)
		}
		if err != nil {
			log.Print(err) // the message comes again
		}
	}
	// Output:
	// shipped order-1
	// ORDERS/0@1 processed
	// shipped order-2
	// ORDERS/0@2 processed
	// ORDERS/0@3 duplicate
}

// A message that is published again, because its handler runs again, is stored once: the claim makes
// its Nats-Msg-Id.
func ExampleSink_Publish() {
	ctx := context.Background()
	js, end := connect()
	defer end()
	publish(js)
	s, err := natstransport.NewSink(js, "orders.shipped", nil)
	if err != nil {
		log.Fatal(err)
	}
	m := &dedup.Message{Value: []byte("order-1"), Claim: dedup.Claim{ID: dedup.NewID("shipping", "order-1")}} // as a handler gets it
	for range 2 {
		fmt.Println(s.Publish(ctx, []*dedup.Message{m})[0])
	}
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
	stream, err := js.Stream(ctx, "ORDERS")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("stored:", stream.CachedInfo().State.Msgs)
	// Output:
	// <nil>
	// <nil>
	// stored: 1
}

// A request that is sent again gets the recorded reply.
func ExampleReply_Msg() {
	js, end := connect()
	defer end()
	conn := js.Conn()
	d, shutdown := newDeduplicator("orders.place")
	defer shutdown()

	orders := 0
	reply, err := natstransport.NewReply(conn, d, func(context.Context, *dedup.Message) ([]byte, error) {
		orders++
		return fmt.Appendf(nil, "order %d", orders), nil
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := conn.QueueSubscribe("place", "orders", reply.Msg); err != nil {
		log.Fatal(err)
	}

	for range 2 {
		answer, err := conn.RequestMsg(&nats.Msg{Subject: "place", Header: nats.Header{dedup.HeaderIdempotencyKey: {"a"}}}, time.Minute)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, replayed: %q\n", answer.Data, answer.Header.Get(natstransport.HeaderReplayed))
	}
	if err := reply.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// order 1, replayed: ""
	// order 1, replayed: "true"
}

// A Reply is a handler of the package micro, too.
func ExampleReply_Handle() {
	js, end := connect()
	defer end()
	conn := js.Conn()
	d, shutdown := newDeduplicator("orders.place")
	defer shutdown()
	reply, err := natstransport.NewReply(conn, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		return []byte("placed " + string(m.Value)), nil
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	service, err := micro.AddService(conn, micro.Config{Name: "orders", Version: "1.0.0"})
	if err != nil {
		log.Fatal(err)
	}
	if err := service.AddEndpoint("place", reply); err != nil {
		log.Fatal(err)
	}

	request := &nats.Msg{Subject: "place", Data: []byte("order-1"), Header: nats.Header{dedup.HeaderIdempotencyKey: {"order-1"}}}
	answer, err := conn.RequestMsg(request, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer.Data))
	if err := errors.Join(service.Stop(), reply.Shutdown(context.Background())); err != nil {
		log.Fatal(err)
	}
	// Output: placed order-1
}

// A ServiceError chooses the code of the reply. Permanent makes it a reply that is recorded.
func ExampleServiceError() {
	js, end := connect()
	defer end()
	conn := js.Conn()
	d, shutdown := newDeduplicator("orders.cancel")
	defer shutdown()
	reply, err := natstransport.NewReply(conn, d, func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.Permanent(&natstransport.ServiceError{Code: "404", Description: "no such order"})
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := conn.Subscribe("cancel", reply.Msg); err != nil {
		log.Fatal(err)
	}

	for range 2 {
		answer, err := conn.RequestMsg(&nats.Msg{Subject: "cancel", Header: nats.Header{dedup.HeaderIdempotencyKey: {"a"}}}, time.Minute)
		if err != nil {
			log.Fatal(err)
		}
		h := answer.Header
		fmt.Printf("%s %s, replayed: %q\n", h.Get(micro.ErrorCodeHeader), h.Get(micro.ErrorHeader), h.Get(natstransport.HeaderReplayed))
	}
	if err := reply.Shutdown(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// 404 no such order, replayed: ""
	// 404 no such order, replayed: "true"
}

// Requests that a stream stores name the subject of their reply in a header.
func ExampleConfig_reply() {
	ctx := context.Background()
	js, end := connect()
	defer end()
	durable := publish(js)
	inbox, err := js.Conn().SubscribeSync(js.Conn().NewInbox())
	if err != nil {
		log.Fatal(err)
	}
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: "orders.new", Data: []byte("order-1"), Header: nats.Header{
		dedup.HeaderIdempotencyKey:  {"order-1"},
		natstransport.HeaderReplyTo: {inbox.Subject},
	}})
	if err != nil {
		log.Fatal(err)
	}
	d, shutdown := newDeduplicator("shipping")
	defer shutdown()
	c, err := natstransport.NewConsumer(js, "ORDERS", "shipping", &natstransport.Config{Reply: true})
	if err != nil {
		log.Fatal(err)
	}
	err = c.Run(untilAcknowledged(durable), d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
		return []byte("shipped " + string(m.Value)), nil
	})
	if err != nil {
		log.Fatal(err)
	}
	reply, err := inbox.NextMsg(time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(reply.Data))
	// Output: shipped order-1
}
