package relay

import (
	"context"
	"crypto/x509"
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
	kafkametrics "github.com/oncequeue/oncequeue/transport/kafka/metrics"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
	natsmetrics "github.com/oncequeue/oncequeue/transport/nats/metrics"
)

// source and sink are what a Relay needs of a broker.
type (
	source interface {
		io.Closer
		Check(ctx context.Context) error
		// redelivery is how long the broker may take, after a Check, to deliver a
		// message again whose handler died; 0 if that is not known.
		redelivery() time.Duration
		Status() sourceStatus
		metrics() prometheus.Collector
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
type kafkaSource struct {
	*kafkatransport.Consumer
	session time.Duration
}

func (s kafkaSource) Status() sourceStatus {
	st := s.Consumer.Status()
	status := sourceStatus{Assigned: st.Assigned, Halted: st.Halted, Failing: st.Failing, Since: st.Since, Progress: st.Progress}
	for _, err := range st.Errors {
		if err != nil {
			status.Cause = line(err.Error())
			break
		}
	}
	return status
}

func (kafkaSource) Close() error { return nil }

func (s kafkaSource) redelivery() time.Duration { return s.session }

func (s kafkaSource) metrics() prometheus.Collector { return kafkametrics.NewCollector(s.Consumer) }

// natsSource is a natstransport.Consumer as a source, with its connection.
type natsSource struct {
	*natstransport.Consumer
	conn     *nats.Conn
	js       jetstream.JetStream
	endpoint Endpoint
	ackWait  time.Duration
}

func (s *natsSource) redelivery() time.Duration { return s.ackWait }

func (s *natsSource) Status() sourceStatus {
	st := s.Consumer.Status()
	return sourceStatus{Assigned: st.Assigned, Halted: st.Halted, Failing: st.Failing, Since: st.Since, Progress: st.Progress}
}

func (s *natsSource) metrics() prometheus.Collector { return natsmetrics.New(s.Consumer) }

func (s *natsSource) Close() error {
	s.conn.Close()
	return nil
}

// Check also makes sure that the consumer delivers what the URL names.
func (s *natsSource) Check(ctx context.Context) error {
	if err := s.Consumer.Check(ctx); err != nil {
		return err
	}
	e := s.endpoint
	consumer, err := s.js.Consumer(ctx, e.Stream, e.Consumer)
	if err != nil {
		return err
	}
	config := consumer.CachedInfo().Config
	s.ackWait = slices.Max(append(config.BackOff, config.AckWait))
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
	config := &kafkatransport.Config{
		ClientID: clientName, Security: security, SessionTimeout: e.Session, OutOfRange: e.OutOfRange, Logger: logger,
		BatchSize: 1024, // one request to the target, and two fsyncs, for as many as are there
	}
	if e.Latest {
		config.StartOffset = kafka.LastOffset
	}
	c, err := kafkatransport.NewConsumer(e.Hosts, e.Group, []string{e.Topic}, config)
	if err != nil {
		return nil, err // not a source that holds a nil pointer
	}
	return kafkaSource{c, e.Session}, nil
}

func newNATSSource(ctx context.Context, e Endpoint, logger *slog.Logger) (_ source, err error) {
	conn, js, err := connect(e, logger)
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
	return &natsSource{Consumer: c, conn: conn, js: js, endpoint: e}, nil
}

// newSink returns a sink for what comes from the topic or subject from. route
// tells its messages from the same ones published for another purpose; redelivery is
// how long a message may take to come again after a crash.
func newSink(e Endpoint, from, route string, letters bool, redelivery time.Duration, logger *slog.Logger) (sink, error) {
	topic := e.For(from)
	if e.For("x") != e.For("y") && strings.ContainsAny(from, "*>") {
		topic = "" // each message its own
	}
	if e.Kind == NATS {
		conn, js, err := connect(e, logger)
		if err != nil {
			return nil, err
		}
		s, err := natstransport.NewSink(js, topic, &natstransport.SinkConfig{Route: route, DeadLetters: letters, Redelivery: redelivery, Logger: logger})
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
	s, err := kafkatransport.NewSink(e.Hosts, topic, &kafkatransport.SinkConfig{ClientID: clientName, Security: security, Compression: e.Compression, Logger: logger})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connect connects to a NATS server and stays connected: once it was reached, it
// is tried again for ever.
func connect(e Endpoint, logger *slog.Logger) (*nats.Conn, jetstream.JetStream, error) {
	opts, err := e.Security.nats(logger)
	if err != nil {
		return nil, nil, err
	}
	urls := make([]string, len(e.Hosts))
	for i, host := range e.Hosts {
		urls[i] = "nats://" + host
	}
	conn, err := nats.Connect(strings.Join(urls, ","), append(opts,
		nats.Name(clientName), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond), nats.Timeout(5*time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { logger.Warn("nats", "err", err) }),
	)...)
	if err != nil {
		return nil, nil, unreached(e, err)
	}
	if _, err := conn.TLSConnectionState(); err != nil && e.Security.User+e.Security.TokenFile+e.Security.TokenEnv != "" {
		logger.Warn("the password or token travels as it is; use nats+tls://", "to", e.String())
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, js, nil
}

// unreached says what to do about a server that cannot be used.
func unreached(e Endpoint, err error) error {
	hosts := strings.Join(e.Hosts, ",")
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("%s refuses the relay: %w; check creds, nkey, token-file, or the user and its password", hosts, err)
	case errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%s does not speak TLS: %w; begin the URL with nats://", hosts, err)
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &name):
		return fmt.Errorf("the certificate of %s is not trusted: %w; name its authority with tls-ca=FILE", hosts, err)
	case e.Security.TLS && e.Security.Cert == "" && strings.Contains(err.Error(), "tls"): // it closes the connection, at a moment that varies
		return fmt.Errorf("%s ends the TLS handshake: %w; if it wants a certificate of the relay's own, name it with tls-cert and tls-key", hosts, err)
	case errors.Is(err, nats.ErrNoServers):
		err = errors.New("connection refused, or no NATS server there")
	}
	return fmt.Errorf("no server of %s answers: %w; check the address, and that the server runs", hosts, err)
}
