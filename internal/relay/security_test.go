package relay

import (
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	"github.com/oncequeue/oncequeue/internal/testcert"
)

// write returns the name of a new file.
func write(t *testing.T, content string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err == nil {
		_, err = f.WriteString(content)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// The relay reads and writes a broker that wants certificates and a password.
func TestRelayWithTLSAndSASL(t *testing.T) {
	authority, err := testcert.New()
	if err != nil {
		t.Fatal(err)
	}
	tomorrow := time.Now().Add(24 * time.Hour)
	server, err := authority.IssueTLS("broker", tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	key, cert, err := authority.Issue("relay", tomorrow)
	if err != nil {
		t.Fatal(err)
	}
	k := brokertest.NewKafka(t, topics, &brokertest.KafkaOptions{More: []kfake.Opt{
		kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "billing", "s3cret"), kfake.Superuser("PLAIN", "billing", "s3cret"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool()}),
	}})
	t.Setenv("KAFKA_PASSWORD", "s3cret")
	secure := "tls-ca=" + write(t, string(authority.PEM())) + "&tls-cert=" + write(t, string(cert)) + "&tls-key=" + write(t, string(key))
	at := "kafka+tls://billing@" + k.Addrs()[0]
	target, err := ParseTarget(at + "/orders.once?compression=zstd&sasl=PLAIN&password-env=KAFKA_PASSWORD&" + secure)
	if err != nil {
		t.Fatal(err)
	}
	source, err := ParseSource(at + "/orders?group=g&sasl=SCRAM-SHA-512&password-file=" + write(t, "s3cret\n") + "&" + secure)
	if err != nil {
		t.Fatal(err)
	}
	orders := target
	orders.Topic = "orders"
	sink, err := newSink(orders, "", "", false, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	for i, err := range sink.Publish(t.Context(), []*dedup.Message{{Value: []byte(`{"order":{"id":1}}`)}, {Value: []byte(`{"order":{"id":1}}`)}, {Value: []byte(`{"order":{"id":2}}`)}}) {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	stop := start(t, k, k, func(c *Config) { c.From, c.To, c.DeadLetter = source, target, Endpoint{} })
	eventually(t, "all to be committed", func() bool { return k.AllCommitted("g", "orders") })
	if got := stop(); got.Relayed != 2 || got.Duplicates != 1 {
		t.Errorf("got %v", got)
	}
}

// What is wrong with files and variables is said before anything is done.
func TestSecurityThatCannotWork(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing.pem")
	junk := write(t, "junk")
	for in, want := range map[string][]string{
		"kafka+tls://h:1/t?tls-ca=" + missing:                                                {"tls-ca", missing, "no such file"},
		"kafka+tls://h:1/t?tls-ca=" + junk:                                                   {"tls-ca", junk, "no certificate in PEM"},
		"kafka+tls://h:1/t?tls-cert=" + missing + "&tls-key=" + junk:                         {"tls-cert", missing, "no such file"},
		"kafka+tls://h:1/t?tls-cert=" + junk + "&tls-key=" + junk:                            {"tls-cert", "PEM"},
		"kafka://u@h:1/t?sasl=PLAIN&password-file=" + missing:                                {"password-file", missing, "no such file"},
		"kafka://u@h:1/t?sasl=PLAIN&password-file=" + write(t, "\n"):                         {"password-file", "is empty"},
		"kafka://u@h:1/t?sasl=SCRAM-SHA-256&password-env=NOBODY_SETS_THIS":                   {"password-env", "NOBODY_SETS_THIS"},
		"kafka://u@h:1/t?sasl=SCRAM-SHA-256&password-file=" + write(t, "a\x00b-unprintable"): {"forbids"},
		"nats://h:1/t?creds=" + missing:                                                      {"creds", missing, "no such file"},
		"nats://h:1/t?nkey=" + missing:                                                       {"nkey", missing},
		"nats://h:1/t?nkey=" + write(t, "unprintable"):                                       {"nkey"},
		"nats://h:1/t?token-file=" + missing:                                                 {"token-file", missing, "no such file"},
		"nats://h:1/t?token-env=NOBODY_SETS_THIS":                                            {"token-env", "NOBODY_SETS_THIS"},
		"nats://u@h:1/t?password-file=" + write(t, "\n"):                                     {"password-file", "is empty"},
		"nats+tls://h:1/t?tls-ca=" + missing:                                                 {"tls-ca", missing, "no such file"},
	} {
		target, err := ParseTarget(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		c := Config{From: Endpoint{Kind: Kafka, Hosts: []string{"h:1"}, Topic: "orders", Group: "g"}, To: target, Key: dedup.PayloadHash()}
		err = c.Check()
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "unprintable") {
				t.Errorf("%s: got %v, want %q in it", in, err, part)
			}
		}
	}
}
