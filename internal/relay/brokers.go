package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
	natsmetrics "github.com/oncequeue/oncequeue/transport/nats/metrics"
)

// source and sink are what a Relay needs of a broker.
type (
	source interface {
		io.Closer
		Check(ctx context.Context) error
		Status() sourceStatus
		RunBatch(ctx context.Context, d *dedup.Deduplicator, h dedup.BatchHandler) error
	}
	sink interface {
		io.Closer
		Check(ctx context.Context) error
		Publish(ctx context.Context, ms []*dedup.Message) []error
	}
)

const clientName = "dedup-relay"

// kafkaSource is a kafkatransport.Consumer as a source.
type kafkaSource struct{ *kafkatransport.Consumer }

func (s kafkaSource) Status() sourceStatus { return sourceStatus(s.Consumer.Status()) }
func (kafkaSource) Close() error           { return nil }

// natsSource is a natstransport.Consumer as a source, with its connection.
type natsSource struct {
	*natstransport.Consumer
	conn     *nats.Conn
	js       jetstream.JetStream
	endpoint Endpoint
}

func (s natsSource) Status() sourceStatus {
	st := s.Consumer.Status()
	return sourceStatus{Assigned: st.Assigned, Halted: st.Halted, Failing: st.Failing, Since: st.Since, Progress: st.Progress}
}

func (s natsSource) metrics() prometheus.Collector { return natsmetrics.New(s.Consumer) }

func (s natsSource) Close() error {
	s.conn.Close()
	return nil
}

// Check also makes sure that the consumer delivers what the URL names.
func (s natsSource) Check(ctx context.Context) error {
	if err := s.Consumer.Check(ctx); err != nil {
		return err
	}
	e := s.endpoint
	consumer, err := s.js.Consumer(ctx, e.Stream, e.Consumer)
	if err != nil {
		return err
	}
	config := consumer.CachedInfo().Config
	delivers := config.FilterSubjects
	if config.FilterSubject != "" {
		delivers = []string{config.FilterSubject}
	}
	if len(delivers) == 0 {
		stream, err := s.js.Stream(ctx, e.Stream)
		if err != nil {
			return err
		}
		delivers = stream.CachedInfo().Config.Subjects
	}
	if !slices.Equal(delivers, []string{e.Topic}) {
		return fmt.Errorf("consumer %s of stream %s delivers %s and not %s: name that in the URL, or filter the consumer by it", e.Consumer, e.Stream, strings.Join(delivers, ", "), e.Topic)
	}
	return nil
}

// natsSink is a natstransport.Sink with its connection.
type natsSink struct {
	*natstransport.Sink
	conn *nats.Conn
}

func (s natsSink) Close() error {
	err := s.Sink.Close()
	s.conn.Close()
	return err
}

func newSource(ctx context.Context, e Endpoint, logger *slog.Logger) (source, error) {
	logger = logger.With("source", e.String())
	if e.Kind == NATS {
		return newNATSSource(ctx, e, logger)
	}
	security, err := e.Security.kafka()
	if err != nil {
		return nil, err
	}
	config := &kafkatransport.Config{ClientID: clientName, Security: security, SessionTimeout: e.Session, Logger: logger}
	if e.Latest {
		config.StartOffset = kafka.LastOffset
	}
	c, err := kafkatransport.NewConsumer(e.Hosts, e.Group, []string{e.Topic}, config)
	if err != nil {
		return nil, err // not a source that holds a nil pointer
	}
	return kafkaSource{c}, nil
}

func newNATSSource(ctx context.Context, e Endpoint, logger *slog.Logger) (_ source, err error) {
	conn, js, err := connect(e)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if e.Stream == "" {
		if e.Stream, err = js.StreamNameBySubject(ctx, e.Topic); err != nil {
			return nil, fmt.Errorf("no stream has the subject %s: create it, or name one with &stream=NAME: %w", e.Topic, err)
		}
	}
	c, err := natstransport.NewConsumer(js, e.Stream, e.Consumer, &natstransport.Config{Logger: logger})
	if err != nil {
		return nil, err
	}
	return natsSource{c, conn, js, e}, nil
}

// newSink returns a sink for what comes from the topic or subject from. route
// tells its messages from the same ones published for another purpose.
func newSink(e Endpoint, from, route string, letters bool, logger *slog.Logger) (sink, error) {
	topic := e.For(from)
	if e.For("x") != e.For("y") && strings.ContainsAny(from, "*>") {
		topic = "" // each message its own
	}
	if e.Kind == NATS {
		conn, js, err := connect(e)
		if err != nil {
			return nil, err
		}
		s, err := natstransport.NewSink(js, topic, &natstransport.SinkConfig{Route: route, DeadLetters: letters, Logger: logger})
		if err != nil {
			conn.Close()
			return nil, err
		}
		return natsSink{s, conn}, nil
	}
	security, err := e.Security.kafka()
	if err != nil {
		return nil, err
	}
	s, err := kafkatransport.NewSink(e.Hosts, topic, &kafkatransport.SinkConfig{ClientID: clientName, Security: security, Compression: e.Compression})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connect connects to a NATS server and stays connected: once it was reached, it
// is tried again for ever.
func connect(e Endpoint) (*nats.Conn, jetstream.JetStream, error) {
	urls := make([]string, len(e.Hosts))
	for i, host := range e.Hosts {
		urls[i] = "nats://" + host
	}
	conn, err := nats.Connect(strings.Join(urls, ","), nats.Name(clientName), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.Timeout(5*time.Second))
	if err != nil {
		if errors.Is(err, nats.ErrNoServers) {
			err = errors.New("connection refused, or no NATS server there")
		}
		return nil, nil, fmt.Errorf("no server of %s answers: %w; check the address, and that the server runs", strings.Join(e.Hosts, ","), err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, js, nil
}
