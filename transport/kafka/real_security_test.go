//go:build real

package kafkatransport_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// securedListeners are those that scripts/kafka.sh starts, and what their clients
// need.
type securedListeners struct {
	addresses map[string][]string // SASL_SSL, MTLS, EXPIRED
	password  string
	trusting  *tls.Config
	known     *tls.Config // trusting, with a certificate of its own
}

func newSecuredListeners(t *testing.T) *securedListeners {
	t.Helper()
	dir := os.Getenv("KAFKA_SECURITY")
	if dir == "" {
		const missing = "KAFKA_SECURITY is not set: run make test-real, or set it to the directory that scripts/kafka.sh start made"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := &securedListeners{addresses: make(map[string][]string), password: strings.TrimSpace(string(read("password")))}
	for line := range strings.Lines(string(read("listeners"))) {
		name, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		s.addresses[name] = []string{address}
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(read("ca.pem")) {
		t.Fatal("ca.pem holds no certificate")
	}
	own, err := tls.X509KeyPair(read("client.pem"), read("client-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.trusting = &tls.Config{RootCAs: authorities}
	s.known = &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{own}}
	return s
}

func realScram(t *testing.T, algorithm scram.Algorithm, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algorithm, "billing", password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRealSecurity writes with the Sink and reads with the Consumer, over each kind
// of secured connection.
func TestRealSecurity(t *testing.T) {
	t.Parallel()
	cluster, listeners := newRealCluster(t), newSecuredListeners(t)
	for name, c := range map[string]struct {
		listener string
		security kafkatransport.Security
	}{
		"SCRAM-SHA-256": {"SASL_SSL", kafkatransport.Security{TLS: listeners.trusting, SASL: realScram(t, scram.SHA256, listeners.password)}},
		"SCRAM-SHA-512": {"SASL_SSL", kafkatransport.Security{TLS: listeners.trusting, SASL: realScram(t, scram.SHA512, listeners.password)}},
		"PLAIN":         {"SASL_SSL", kafkatransport.Security{TLS: listeners.trusting, SASL: plain.Mechanism{Username: "billing", Password: listeners.password}}},
		"mutual TLS":    {"MTLS", kafkatransport.Security{TLS: listeners.known}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), realDeadline)
			defer cancel()
			brokers, topic := listeners.addresses[c.listener], cluster.createTopic(ctx, t)
			sink, err := kafkatransport.NewSink(brokers, topic, &kafkatransport.SinkConfig{Security: c.security})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sink.Close() }()
			if err := sink.Check(ctx); err != nil {
				t.Fatalf("Sink.Check: %v", err)
			}
			const n = 1000
			ms := make([]*dedup.Message, n)
			for i := range ms {
				ms[i] = &dedup.Message{Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}
				ms[i].Headers.SetKey(dedup.Key(fmt.Sprint(i)))
			}
			publish(ctx, t, sink, ms)
			got := consume(ctx, t, brokers, topic, n, &kafkatransport.Config{Security: c.security})
			for i := range n {
				if got[fmt.Sprint(i)] == nil {
					t.Fatalf("got %d messages of %d, and not %d", len(got), n, i)
				}
			}
		})
	}
}

// consume reads n messages from the topic with a new group, and returns them by
// their values.
func consume(ctx context.Context, t *testing.T, brokers []string, topic string, n int, config *kafkatransport.Config) map[string]*dedup.Message {
	t.Helper()
	consumer, err := kafkatransport.NewConsumer(brokers, "group-"+rand.Text(), []string{topic}, config)
	if err != nil {
		t.Fatal(err)
	}
	if err := consumer.Check(ctx); err != nil {
		t.Fatalf("Consumer.Check: %v", err)
	}
	d, err := dedup.New(memstore.New(nil), "real", dedup.HeaderKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}()
	handled := make(chan *dedup.Message, n)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- consumer.Run(ctx, d, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			handled <- m
			return nil, nil
		})
	}()
	got := make(map[string]*dedup.Message, n)
	for range n {
		select {
		case m := <-handled:
			got[string(m.Value)] = m
		case <-ctx.Done():
			t.Errorf("got %d messages of %d in time", len(got), n)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	return got
}

// TestRealSecurityErrors: what is wrong with a connection is said, in one line.
func TestRealSecurityErrors(t *testing.T) {
	cluster, listeners := newRealCluster(t), newSecuredListeners(t)
	ctx, cancel := context.WithTimeout(t.Context(), realDeadline)
	defer cancel()
	topic := cluster.createTopic(ctx, t)
	const wrong = "wr0ng-pass"
	for name, c := range map[string]struct {
		brokers  []string
		security kafkatransport.Security
		want     []string
	}{
		"wrong password, SCRAM":  {listeners.addresses["SASL_SSL"], kafkatransport.Security{TLS: listeners.trusting, SASL: realScram(t, scram.SHA512, wrong)}, []string{"does not know the user, or not with this password"}},
		"wrong password, PLAIN":  {listeners.addresses["SASL_SSL"], kafkatransport.Security{TLS: listeners.trusting, SASL: plain.Mechanism{Username: "billing", Password: wrong}}, []string{"does not know the user, or not with this password"}},
		"unknown user":           {listeners.addresses["SASL_SSL"], kafkatransport.Security{TLS: listeners.trusting, SASL: plain.Mechanism{Username: "nobody", Password: wrong}}, []string{"does not know the user"}},
		"no SASL, port for it":   {listeners.addresses["SASL_SSL"], kafkatransport.Security{TLS: listeners.trusting}, []string{"authenticate if it is one"}},
		"port without SASL":      {cluster.brokers, kafkatransport.Security{SASL: realScram(t, scram.SHA256, wrong)}, []string{"leave SASL out"}},
		"expired certificate":    {listeners.addresses["EXPIRED"], kafkatransport.Security{TLS: listeners.trusting}, []string{"certificate has expired", "renew the broker's certificate"}},
		"unknown authority":      {listeners.addresses["MTLS"], kafkatransport.Security{TLS: &tls.Config{}}, []string{"unknown authority", "trust the authority"}},
		"no client certificate":  {listeners.addresses["MTLS"], kafkatransport.Security{TLS: listeners.trusting}, []string{"refuses this client's certificate, or wants one"}},
		"plain client, TLS port": {listeners.addresses["EXPIRED"], kafkatransport.Security{}, []string{"connect with TLS"}},
		"TLS client, plain port": {cluster.brokers, kafkatransport.Security{TLS: listeners.trusting}, []string{"TLS handshake", "probably one without TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			consumer, err := kafkatransport.NewConsumer(c.brokers, "g", []string{topic}, &kafkatransport.Config{Security: c.security})
			if err != nil {
				t.Fatal(err)
			}
			sink, err := kafkatransport.NewSink(c.brokers, topic, &kafkatransport.SinkConfig{Security: c.security})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = sink.Close() }()
			began := time.Now()
			for _, check := range []func(context.Context) error{consumer.Check, sink.Check} {
				err := check(ctx)
				for range 3 { // a pause of the machine can end a handshake
					if err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
						break
					}
					err = check(ctx)
				}
				for _, want := range append(c.want, c.brokers[0]) {
					if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), wrong) {
						t.Errorf("got error %v, want one line with %q and without the password", err, want)
					}
				}
				t.Log(err)
			}
			t.Logf("after %v", time.Since(began).Round(time.Millisecond))
		})
	}
}
