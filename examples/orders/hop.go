package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

// The names of the two hops. A hop has one name for its process, its scope and its consumer.
const (
	inventory = "inventory"
	carrier   = "carrier"
)

// hop is one hop, which is a process.
type hop struct {
	name    string
	brokers []string // addresses of the Kafka brokers
	js      jetstream.JetStream
	world   string // URL of the systems on which the hops have their effects
	logger  *slog.Logger
}

// isHop reports whether args are the arguments of a hop's process.
func isHop(args []string) bool {
	return len(args) == 5 && slices.Contains([]string{inventory, carrier}, args[0])
}

// runHop is the whole process of a hop. It returns the exit code.
func runHop(ctx context.Context, args []string, stderr io.Writer) int {
	h := &hop{name: args[0], brokers: strings.Split(args[1], ","), world: args[3]}
	h.logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // returns when the process that started this one is gone
		stop()
	}()
	if err := h.run(ctx, args[2], args[4]); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", h.name, err)
		return 1
	}
	return 0
}

func (h *hop) run(ctx context.Context, server, dir string) error {
	conn, err := nats.Connect(server, nats.MaxReconnects(-1))
	if err != nil {
		return err
	}
	defer conn.Close()
	if h.js, err = jetstream.New(conn); err != nil {
		return err
	}
	defer http.DefaultClient.CloseIdleConnections()
	// The topic and the stream are new: nobody has processed messages of them without this store.
	store, err := boltstore.Open(dir, &boltstore.Options{Logger: h.logger, VouchFrom: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	defer store.Close()
	// Both hops use the same key. Each has its own scope, so there would be two records even if
	// the hops shared a store.
	d, err := dedup.New(store, h.name, dedup.HeaderKey(), &dedup.Options{Logger: h.logger, Concurrency: 16})
	if err != nil {
		return err
	}
	if h.name == inventory {
		err = h.reserve(ctx, d)
	} else {
		err = h.book(ctx, d)
	}
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := d.Shutdown(closing); err != nil {
		return err
	}
	return err
}

// reserve reserves the goods of each order and publishes the reservation.
func (h *hop) reserve(ctx context.Context, d *dedup.Deduplicator) error {
	sink, err := natstransport.NewSink(h.js, reservationsNew, &natstransport.SinkConfig{Logger: h.logger})
	if err != nil {
		return err
	}
	defer sink.Close()
	consumer, err := kafkatransport.NewConsumer(h.brokers, inventory, []string{ordersTopic}, &kafkatransport.Config{
		SessionTimeout: 3 * time.Second, // short, because nobody wants to wait for the group after the crash
		Logger:         h.logger,
	})
	if err != nil {
		return err
	}
	return consumer.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		if err := h.effect(ctx, m); err != nil {
			return nil, err
		}
		// The reservation has the headers of the order, and the key is one of them. The sink
		// makes the Nats-Msg-Id of the claim, so that the stream does not store a reservation
		// again if it is published again.
		next := &dedup.Message{Value: m.Value, Headers: m.Headers, Claim: m.Claim}
		if err := sink.Publish(ctx, []*dedup.Message{next})[0]; err != nil {
			return nil, dedup.MaybeDone(err) // the goods are reserved, whether or not it was published
		}
		return nil, nil
	})
}

// book books the transport of each reservation.
func (h *hop) book(ctx context.Context, d *dedup.Deduplicator) error {
	consumer, err := natstransport.NewConsumer(h.js, reservationsStream, carrier, &natstransport.Config{Logger: h.logger})
	if err != nil {
		return err
	}
	return consumer.Run(ctx, d, func(ctx context.Context, m *dedup.Message) ([]byte, error) {
		return nil, h.effect(ctx, m)
	})
}

// effect asks the system behind the hop to have its effect. That system has the effect as often as
// it is asked. If it refused an id that it has seen, the effect would happen exactly once.
func (h *hop) effect(ctx context.Context, m *dedup.Message) error {
	order, _ := m.Headers.Get(dedup.HeaderIdempotencyKey)
	query := url.Values{"order": {string(order)}}
	if m.Claim.Ambiguous {
		query.Set("ambiguous", "true")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.world+"/"+h.name+"?"+query.Encode(), nil)
	if err != nil {
		return dedup.Permanent(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return dedup.MaybeDone(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return dedup.MaybeDone(fmt.Errorf("%s answered %s", h.name, resp.Status))
	}
	return nil
}
