package relay

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
)

func TestMappingRoundTrip(t *testing.T) {
	stamp := time.UnixMilli(1_700_000_000_123).UTC()
	in := &dedup.Message{
		Topic: "t", Key: []byte("k\x00"), Value: []byte("v"), Published: stamp,
		Headers: dedup.Headers{
			{Key: "plain", Value: []byte("text")}, {Key: "plain", Value: []byte("again")}, {Key: "empty", Value: []byte{}}, {Key: "null"},
			{Key: "binary", Value: []byte{0, 0xff, '\r', '\n'}}, {Key: "umlaut", Value: []byte("grün")}, {Key: "word", Value: []byte("=?binary?B?eA==?=")},
			{Key: "spaces", Value: []byte(" x ")}, {Key: "with space", Value: []byte("1")}, {Key: "", Value: []byte("2")}, {Key: "a:b", Value: []byte("3")}, {Key: "user@host", Value: []byte("5")}, {Key: "x[0]/y=z", Value: []byte("6")},
			{Key: "Nats-Rollup", Value: []byte("all")}, {Key: "nats-msg-id", Value: []byte("4")},
		},
	}
	wire := output(in, "t")
	toNATS(wire)
	for _, h := range wire.Headers {
		if hasPrefix(h.Key, "Nats-") || h.Key == "" || strings.ContainsAny(h.Key, " :@[]/=\r\n") || bytes.ContainsAny(h.Value, "\r\n\x00") {
			t.Errorf("header %q: %q cannot travel", h.Key, h.Value)
		}
	}
	wire.Headers = append(wire.Headers, dedup.Header{Key: "Nats-Stream", Value: []byte("dropped")})
	wire.Key, wire.Published = nil, time.Now() // as a delivery has them
	out := fromNATS(wire)
	if !bytes.Equal(out.Key, in.Key) || !out.Published.Equal(stamp) {
		t.Errorf("got key %q, time %v", out.Key, out.Published)
	}
	if len(out.Headers) != len(in.Headers)+1 { // Dedup-Source
		t.Fatalf("got %d headers: %v", len(out.Headers), out.Headers)
	}
	for i, h := range in.Headers {
		if got := out.Headers[i]; got.Key != h.Key || !bytes.Equal(got.Value, h.Value) || (got.Value == nil) != (h.Value == nil) {
			t.Errorf("got header %q: %q, want %q: %q", got.Key, got.Value, h.Key, h.Value)
		}
	}
}

// FuzzMapping: whatever Kafka has in a header and a key comes back from NATS.
func FuzzMapping(f *testing.F) {
	f.Add("name", []byte("value"), []byte("key"))
	f.Add("Nats-Msg-Id", []byte("=?binary?N??="), []byte{})
	f.Fuzz(func(t *testing.T, name string, value, key []byte) {
		if hasPrefix(name, headerPrefix) {
			return // the relay's own: dropped before
		}
		m := &dedup.Message{Key: key, Headers: dedup.Headers{{Key: name, Value: value}}}
		toNATS(m)
		for _, h := range m.Headers {
			for _, c := range []byte(h.Key) {
				if c <= ' ' || c >= 0x7f || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", rune(c)) {
					t.Fatalf("name %q cannot travel", h.Key)
				}
			}
			for _, c := range h.Value {
				if c < ' ' || c >= 0x7f {
					t.Fatalf("value %q cannot travel", h.Value)
				}
			}
		}
		m.Key = nil
		out := fromNATS(m)
		if !bytes.Equal(out.Key, key) || len(out.Headers) != 1 || out.Headers[0].Key != name || !bytes.Equal(out.Headers[0].Value, value) {
			t.Errorf("got key %q, headers %v", out.Key, out.Headers)
		}
	})
}
