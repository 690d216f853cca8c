package relay

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/oncequeue/oncequeue/dedup"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

func TestParseSource(t *testing.T) {
	for in, want := range map[string]Endpoint{
		"kafka://localhost:9092/orders?group=g": {Kind: Kafka, Hosts: []string{"localhost:9092"}, Topic: "orders", Group: "g"},
		"kafka://a:1,b:2,a:1/o.1_x-y?group=a%20b&session=6s&start=latest&out-of-range=earliest": {
			Kind: Kafka, Hosts: []string{"a:1", "b:2"}, Topic: "o.1_x-y", Group: "a b", Session: 6 * time.Second, Latest: true, OutOfRange: kafkatransport.Earliest},
		"kafka+tls://a%40b@h:1/t?group=g&sasl=scram-sha-512&password-file=/p&tls-ca=/ca&tls-cert=/c&tls-key=/k": {Kind: Kafka, Hosts: []string{"h:1"}, Topic: "t", Group: "g",
			Security: Security{TLS: true, CA: "/ca", Cert: "/c", Key: "/k", User: "a@b", Mechanism: "SCRAM-SHA-512", PasswordFile: "/p"}},
		"kafka://u@h:1/t?group=g&sasl=PLAIN&password-env=P":             {Kind: Kafka, Hosts: []string{"h:1"}, Topic: "t", Group: "g", Security: Security{User: "u", Mechanism: "PLAIN", PasswordEnv: "P"}},
		"kafka://[::1]:9092/t?group=g&start=earliest&out-of-range=fail": {Kind: Kafka, Hosts: []string{"[::1]:9092"}, Topic: "t", Group: "g"},
	} {
		got, err := ParseSource(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "orders", "kafka:/h:1/t?group=g", "kafka://h:1/?group=g", "kafka://h:1?group=g", "kafka:///t?group=g", "kafka://h/t?group=g",
		"kafka://h:0/t?group=g", "kafka://h:65536/t?group=g", "kafka://:1/t?group=g", "kafka://h:1,/t?group=g", "kafka://h:1/a b?group=g",
		"kafka://h:1/t/u?group=g", "kafka://h:1/..?group=g", "kafka://h:1/{topic}?group=g", "kafka://h:1/t?group=", "kafka://h:1/t",
		"kafka://h:1/t?group=g&session=-1s", "kafka://h:1/t?group=g&start=middle", "kafka://h:1/t?group=g&out-of-range=Latest", "nats://h:1/t?consumer=c&out-of-range=fail", "kafka://h:1/t?group=g&x=1", "kafka://h:1/t?group=g&group=h", "kafka://h:1/t?group=%zz",
		"kafka://h:1/t?group=g&tls-ca=/ca", "kafka://h:1/t?group=g&password-env=P", "kafka://u@h:1/t?group=g", "kafka://u@h:1/t?group=g&sasl=PLAIN", "kafka://u@h:1/t?group=g&sasl=GSSAPI&password-env=P",
		"kafka://u@h:1/t?group=g&sasl=PLAIN&password-env=P&password-file=/p", "kafka+tls://h:1/t?group=g&tls-cert=/c", "kafka+tls://h:1/t?group=g&tls-ca=", "kafka+tls://h:1/t?group=g&tls-ca=/a&tls-ca=/b",
		"kafka://@h:1/t?group=g", "kafka+ssl://h:1/t?group=g", "nats+tls+tls://h:1/t?consumer=c", "kafka://h:1/t?group=g&creds=/c",
		"nats://h:1/t?consumer=c&tls-ca=/ca", "nats://u@h:1/t?consumer=c", "nats://u@h:1/t?consumer=c&password-env=P&creds=/c", "nats://h:1/t?consumer=c&token-env=T&token-file=/t",
		"nats://h:1/t?consumer=c&creds=/c&nkey=/n", "nats://h:1/t?consumer=c&sasl=PLAIN", "nats://u@h:1/t?consumer=c&creds=/c", "kafka://h:1/t?group=g&compression=gzip", "kafka://h:1/" + strings.Repeat("t", 250) + "?group=g", "KAFKA://h:1/t?group=g",
	} {
		if got, err := ParseSource(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

func TestParseTarget(t *testing.T) {
	got, err := ParseTarget("kafka://h:1/{topic}.once")
	if err != nil || got.For("orders") != "orders.once" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := ParseTarget("kafka://h:1/t?group=g"); err == nil {
		t.Error("a target took a group")
	}
}

func TestParseTargetOptions(t *testing.T) {
	got, err := ParseTarget("kafka+tls://h:1/t?compression=zstd&tls-ca=/ca")
	if err != nil || got.Compression != kafka.Zstd || got.Security != (Security{TLS: true, CA: "/ca"}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, in := range []string{"kafka://h:1/t?compression=best", "kafka://h:1/t?compression=gzip&compression=gzip", "nats://h:1/t?compression=gzip"} {
		if _, err := ParseTarget(in); err == nil {
			t.Errorf("%q: want an error", in)
		}
	}
}

// A password that somebody wrote into a URL all the same is not repeated.
func TestErrorsHoldNoPassword(t *testing.T) {
	for _, in := range []string{
		"kafka://u:hunter2@h:1/t?group=g", "kafka://u:hun/hunter2@h:1/t?group=g", "kafka://u:hunter2@h/t", "kakfa://u:hunter2@h:1/t", "nats://u:hunter2@h:1/t?consumer=c", "nats://u:hun/hunter2@h:1/t?consumer=c", "nats://hunter2@h:1/t?consumer=c",
		"kafka://h:1/t?group=g&password=hunter2", "kafka://u@h:1/t?group=g&sasl=PLAIN&password=hunter2",
	} {
		_, source := ParseSource(in)
		_, target := ParseTarget(in)
		for _, err := range []error{source, target} {
			if err == nil || strings.Contains(err.Error(), "hun") {
				t.Errorf("%q: got %v, want an error without the password", in, err)
			}
		}
	}
}

func TestParseKey(t *testing.T) {
	m := &dedup.Message{Value: []byte(`{"order":{"id":7}}`), Position: dedup.Position{Source: "t"}, Key: []byte("k")}
	for in, found := range map[string]bool{
		"header:X": false, "header:X, json:order.id": true, "json:order.id": true, "payload": true, "record-key": true, "position": true, "json:nothing": false,
	} {
		fn, err := ParseKey(in)
		if err != nil {
			t.Fatalf("%q: %v", in, err)
		}
		if key, err := fn(m); (err == nil) != found || err != nil && !errors.Is(err, dedup.ErrNoKey) {
			t.Errorf("%q: got key %q, %v", in, key, err)
		}
	}
	for _, in := range []string{"", "header", "header:", "json:", "json:a..b", "payload:x", "record-key:x", "position,", "HEADER:X"} {
		if _, err := ParseKey(in); err == nil {
			t.Errorf("%q: want an error", in)
		}
	}
}

func TestParseStore(t *testing.T) {
	for in, want := range map[string]StoreURL{
		"bolt:/var/lib/x": {Kind: "bolt", Dir: "/var/lib/x"}, "bolt:.": {Kind: "bolt", Dir: "."}, "mem:": {Kind: "mem"},
		"bolt:/d?max-bytes=67108864":     {Kind: "bolt", Dir: "/d", MaxBytes: 64 << 20},
		"redis+sentinel://h:1,g:2/main":  {Kind: "redis", Redis: redisURL{Hosts: "h:1,g:2", Master: "main"}},
		"rediss+sentinel://h:1/m-1?db=3": {Kind: "redis", Redis: redisURL{Hosts: "h:1", Master: "m-1", DB: 3, Security: Security{TLS: true}}},
		"redis://h:1/3":                  {Kind: "redis", Redis: redisURL{Hosts: "h:1", DB: 3}},
		"redis+cluster://h:1,[::1]:2":    {Kind: "redis", Redis: redisURL{Hosts: "h:1,[::1]:2", Cluster: true}},
		"rediss://h:1/0":                 {Kind: "redis", Redis: redisURL{Hosts: "h:1", Security: Security{TLS: true}}},
		"rediss+cluster://h:1":           {Kind: "redis", Redis: redisURL{Hosts: "h:1", Cluster: true, Security: Security{TLS: true}}},
	} {
		if got, err := ParseStore(in); err != nil || got != want || got.String() != in {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
	got, err := ParseStore("rediss://u%40x@h:1?password-env=P&prefix=a:&tls-ca=/ca")
	want := redisURL{Hosts: "h:1", Prefix: "a:", Security: Security{TLS: true, CA: "/ca", User: "u@x", PasswordEnv: "P"}}
	if err != nil || got.Redis != want || got.String() != "rediss://h:1/0" {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = ParseStore("redis+sentinel://u@h:1/main?password-env=P&sentinel-password-file=/s")
	want = redisURL{Hosts: "h:1", Master: "main", Security: Security{User: "u", PasswordEnv: "P"}, Sentinel: Security{PasswordFile: "/s"}}
	if err != nil || got.Redis != want || got.String() != "redis+sentinel://h:1/main" {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := ParseStore("bolt:/d?max-bytes=20GiB"); err != nil || got.MaxBytes != 20<<30 {
		t.Errorf("got %+v, %v, want 20 GiB", got, err)
	}
	for _, in := range []string{
		"bolt:/d?", "bolt:?max-bytes=1", "bolt:/d?max-bytes=", "bolt:/d?max-bytes=0", "bolt:/d?max-bytes=-1", "bolt:/d?max-bytes=1GB", "bolt:/d?max-bytes=9999999999GiB", "bolt:/d?roll-bytes=1",
		"redis+sentinel://h:1", "redis+sentinel://h:1/", "redis+sentinel://h:1/a/b", "redis+sentinel+cluster://h:1/m", "redis+sentinel://h:1/m?db=x", "redis+sentinel://u:secret@h:1/m", "redis+sentinel://:secret@h:1/m",
		"redis://h:1?sentinel-password-env=A",
		"", "bolt", "bolt:", "mem", "mem:x", "redis:h:1", "redis://", "redis://h", "redis://h:1,g:2/0", "redis://h:1/x", "redis://h:1/-1", "redis+cluster://h:1/0",
		"redis://u:secret@h:1", "redis://:secret@h:1", "redis://u:sec/ret@h:1", "redis://u@h:1", "redis://@h:1", "redis://h:1?tls-ca=/ca", "redis://h:1?x=secret", "redis://h:1?prefix=a&prefix=b",
		"rediss://h:1?tls-cert=/c", "redis://h:1?db=%zz",
	} {
		if _, err := ParseStore(in); err == nil || strings.Contains(err.Error(), "secret") && !strings.Contains(in, "x=secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got error %v, want one line without the password", in, err)
		}
	}
}

func TestPasswordInTwoPlaces(t *testing.T) {
	for in, want := range map[string]string{
		"redis://h:1?password-env=A&password-file=B":                              ": password-file or password-env",
		"redis+sentinel://h:1/m?sentinel-password-env=A&sentinel-password-file=B": ": sentinel-password-file or sentinel-password-env",
	} {
		if _, err := ParseStore(in); err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: got error %v, want it to end in %q", in, err, want)
		}
	}
}

// FuzzEndpoint: what is accepted can be written and read again.
func FuzzEndpoint(f *testing.F) {
	f.Add("kafka://h:1,g:2/t?group=g&session=6s")
	f.Add("kafka://[::1]:9092/t%2e?group=a%20b")
	f.Fuzz(func(t *testing.T, in string) {
		if e, err := ParseTarget(in); err == nil {
			e.Security, e.Compression = Security{TLS: e.Security.TLS}, 0 // String leaves them out
			if again, err := ParseTarget(e.String()); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("%q: got %+v, then %+v, %v", in, e, again, err)
			}
		}
		if e, err := ParseSource(in); err == nil && (e.Group == "" || len(e.Hosts) == 0 || checkTopic(e.Topic) != nil) {
			t.Errorf("%q: accepted %+v", in, e)
		}
	})
}
