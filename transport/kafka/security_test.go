package kafkatransport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/testcert"
)

const (
	user     = "billing"
	password = "s3cret-pass"
)

func scramMechanism(t *testing.T, algo scram.Algorithm, password string) sasl.Mechanism {
	t.Helper()
	m, err := scram.Mechanism(algo, user, password)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newAuthority(t *testing.T) *testcert.Authority {
	t.Helper()
	a, err := testcert.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *testcert.Authority, until time.Time) tls.Certificate {
	t.Helper()
	c, err := a.IssueTLS(user, until)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// secured starts a broker with the topic t behind TLS and SASL; nil for server
// means without TLS.
func secured(t *testing.T, server *tls.Config, more ...kfake.Opt) *brokertest.Kafka {
	t.Helper()
	if server != nil {
		more = append(more, kfake.TLS(server))
	}
	return brokertest.NewKafka(t, map[string]int32{"t": 3}, &brokertest.KafkaOptions{More: more})
}

func withUser(mechanism string) []kfake.Opt {
	return []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, user, password)}
}

// TestSecurity writes with the Sink and reads with the Consumer over each kind of
// secured connection.
func TestSecurity(t *testing.T) {
	authority := newAuthority(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	server := &tls.Config{Certificates: []tls.Certificate{issue(t, authority, tomorrow)}}
	mutual := server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	client := &tls.Config{RootCAs: authority.Pool()}
	identified := client.Clone()
	identified.Certificates = []tls.Certificate{issue(t, authority, tomorrow)}
	for name, c := range map[string]struct {
		server   *tls.Config
		users    []kfake.Opt
		security Security
	}{
		"TLS":               {server, nil, Security{TLS: client}},
		"mutual TLS":        {mutual, nil, Security{TLS: identified}},
		"TLS and PLAIN":     {server, withUser("PLAIN"), Security{TLS: client, SASL: plain.Mechanism{Username: user, Password: password}}},
		"TLS and SCRAM-256": {server, withUser("SCRAM-SHA-256"), Security{TLS: client, SASL: scramMechanism(t, scram.SHA256, password)}},
		"SCRAM-512":         {nil, withUser("SCRAM-SHA-512"), Security{SASL: scramMechanism(t, scram.SHA512, password)}},
	} {
		t.Run(name, func(t *testing.T) {
			k := secured(t, c.server, c.users...)
			sink := newSink(t, k, "t", &SinkConfig{Security: c.security})
			if err := sink.Check(t.Context()); err != nil {
				t.Fatalf("Sink.Check: %v", err)
			}
			const n = 100
			ms := make([]*dedup.Message, n)
			for i := range ms {
				v := fmt.Append(nil, i)
				ms[i] = &dedup.Message{Key: v, Value: v, Headers: dedup.Headers{{Key: dedup.HeaderIdempotencyKey, Value: v}}}
			}
			for i, err := range sink.Publish(t.Context(), ms) {
				if err != nil {
					t.Fatalf("message %d: %v", i, err)
				}
			}
			config := quick(t)
			config.Security = c.security
			consumer, d, j := newConsumer(t, k, "g", config, "t"), newDeduplicator(t, nil), newJournal()
			if err := consumer.Check(t.Context()); err != nil {
				t.Fatalf("Consumer.Check: %v", err)
			}
			r := start(t, func(ctx context.Context) error { return consumer.Run(ctx, d, j.handle) })
			eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
			if err := r.Stop(); err != nil {
				t.Errorf("Run: got %v, want nil", err)
			}
			j.check(t, n)
		})
	}
}

// TestCheckSaysWhatIsWrongWithTheConnection: each error names the cause and what to
// do, and no secret.
func TestCheckSaysWhatIsWrongWithTheConnection(t *testing.T) {
	authority, stranger := newAuthority(t), newAuthority(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	server := &tls.Config{Certificates: []tls.Certificate{issue(t, authority, tomorrow)}}
	expired := &tls.Config{Certificates: []tls.Certificate{issue(t, authority, time.Now().Add(-time.Hour))}}
	mutual := server.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	client := &tls.Config{RootCAs: authority.Pool()}
	elsewhere := client.Clone()
	elsewhere.ServerName = "kafka.example.org"
	const wrong = "wr0ng-pass"
	scram := scramMechanism(t, scram.SHA256, wrong)
	for name, c := range map[string]struct {
		brokers  []string
		security Security
		want     []string
	}{
		"wrong password":         {answering(t, kmsg.SASLAuthenticate, kerr.SaslAuthenticationFailed), Security{SASL: scram}, []string{"does not know the user, or not with this password"}},
		"mechanism not offered":  {answering(t, kmsg.SASLHandshake, kerr.UnsupportedSaslMechanism), Security{SASL: scram}, []string{"does not offer SCRAM-SHA-256", "sasl.enabled.mechanisms"}},
		"port without SASL":      {answering(t, kmsg.SASLHandshake, kerr.IllegalSaslState), Security{SASL: scram}, []string{"leave SASL out"}},
		"no SASL, port for it":   {secured(t, nil, withUser("PLAIN")...).Addrs(), Security{}, []string{"authenticate if it is one"}},
		"expired certificate":    {secured(t, expired).Addrs(), Security{TLS: client}, []string{"certificate has expired", "renew the broker's certificate"}},
		"unknown authority":      {secured(t, server).Addrs(), Security{TLS: &tls.Config{RootCAs: stranger.Pool()}}, []string{"unknown authority", "trust the authority"}},
		"another name":           {secured(t, server).Addrs(), Security{TLS: elsewhere}, []string{"kafka.example.org", "connect to a name that the broker's certificate holds"}},
		"no client certificate":  {secured(t, mutual).Addrs(), Security{TLS: client}, []string{"certificate required", "refuses this client's certificate, or wants one"}},
		"plain client, TLS port": {secured(t, server).Addrs(), Security{}, []string{"connect with TLS"}},
		"plain client, alert":    {hangingUp(t, "\x15\x03\x03\x00\x02\x02\x50"), Security{}, []string{"its port is one for TLS"}},
		"TLS client, plain port": {hangingUp(t, ""), Security{TLS: client}, []string{"TLS handshake with 127.0.0.1", "probably one without TLS"}},
	} {
		t.Run(name, func(t *testing.T) {
			consumer, err := NewConsumer(c.brokers, "g", []string{"t"}, &Config{Security: c.security})
			if err != nil {
				t.Fatal(err)
			}
			sink := newSinkTo(t, c.brokers, "t", &SinkConfig{Security: c.security})
			for _, err := range []error{consumer.Check(t.Context()), sink.Check(t.Context())} {
				wantError(t, err, append(c.want, c.brokers[0])...)
				if err != nil && strings.Contains(err.Error(), wrong) {
					t.Errorf("got error %v, with the password in it", err)
				}
			}
		})
	}
}

// answering starts a broker that answers a step of the authentication with the
// code, as real brokers do; kfake hangs up.
func answering(t *testing.T, step kmsg.Key, code *kerr.Error) []string {
	k := secured(t, nil, withUser("SCRAM-SHA-256")...)
	k.Cluster().ControlKey(step.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.Cluster().KeepControl()
		res := r.ResponseKind()
		switch res := res.(type) {
		case *kmsg.SASLHandshakeResponse:
			res.ErrorCode = code.Code
		case *kmsg.SASLAuthenticateResponse:
			res.ErrorCode = code.Code
		}
		return res, nil, true
	})
	return k.Addrs()
}

// hangingUp starts a server that ends each connection at the first byte, with these
// as last words.
func hangingUp(t *testing.T, words string) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, words)
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return []string{l.Addr().String()}
}

// Brokers of Java answer a client without TLS with an alert, or not at all.
func TestFirstRead(t *testing.T) {
	for _, c := range []struct {
		read string
		err  error
		want error
	}{
		{"\x15\x03\x03\x00\x02\x02\x50", nil, errTLSPort},
		{"", io.EOF, errMute},
		{"", net.ErrClosed, net.ErrClosed},
		{"\x00\x00\x00\x20", nil, nil},
	} {
		if got := firstRead([]byte(c.read), c.err); got != c.want { //nolint:errorlint // the very value
			t.Errorf("firstRead(%q, %v): got %v, want %v", c.read, c.err, got, c.want)
		}
	}
}

// An error that says all itself is left alone.
func TestExplainOthers(t *testing.T) {
	for _, err := range []error{net.ErrClosed, context.DeadlineExceeded, x509.CertificateInvalidError{Reason: x509.TooManyIntermediates}} {
		if got := (&Security{}).explain(err); got != "" {
			t.Errorf("explain(%v): got %q, want nothing", err, got)
		}
	}
}
