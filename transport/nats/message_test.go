package natstransport

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestMessage(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	newStream(t, js, nil)
	m := &nats.Msg{Subject: "s.x", Data: []byte("v"), Header: nats.Header{
		"b": {"2", "1"}, "A": {"x"}, "c": {""}, "Nats-Msg-Id": {"id"}, "bytes": {"\x00\xff"},
	}}
	if _, err := js.PublishMsg(deadline(t), m); err != nil {
		t.Fatal(err)
	}
	raw := fetch(t, js, 1)[0]
	before := time.Now()
	got, err := Message(raw)
	if err != nil {
		t.Fatal(err)
	}
	if want := `[{"A" "x"} {"Nats-Msg-Id" "id"} {"b" "2"} {"b" "1"} {"bytes" "\x00\xff"} {"c" ""}]`; fmt.Sprintf("%q", got.Headers) != want {
		t.Errorf("headers: got %q, want %s", got.Headers, want)
	}
	if want := (dedup.Position{Source: "S", Offset: 1}); got.Position != want {
		t.Errorf("position: got %v, want %v", got.Position, want)
	}
	if got.Topic != "s.x" || string(got.Value) != "v" || got.Key != nil || got.Delivery != 1 || got.Raw != jetstream.Msg(raw) {
		t.Errorf("got %+v", got)
	}
	if got.Published.After(before) || got.Published.Before(before.Add(-time.Minute)) {
		t.Errorf("published: got %v at %v", got.Published, before)
	}
	if err := raw.Ack(); err != nil {
		t.Error(err)
	}
}

func TestMessageNotFromJetStream(t *testing.T) {
	if _, err := Message(nil); err == nil {
		t.Error("no message: got nil, want an error")
	}
}

// TestPublishedIsTheServersTimestamp: the server's clock is an hour ahead. The first
// delivery and the second have the same Published, and so the same PositionKey.
func TestPublishedIsTheServersTimestamp(t *testing.T) {
	ahead := time.Now().Add(time.Hour)
	delivery := func(count int) *dedup.Message {
		m := &nats.Msg{
			Subject: "s.x",
			Reply:   fmt.Sprintf("$JS.ACK.S.C.%d.7.%d.%d.0", count, count, ahead.UnixNano()),
			Sub:     &nats.Subscription{},
		}
		d := &dedup.Message{}
		if _, err := fill(d, m); err != nil {
			t.Fatal(err)
		}
		if d.Delivery != count || d.Position != (dedup.Position{Source: "S", Offset: 7}) {
			t.Fatalf("got delivery %d of %v, want %d of S/0@7", d.Delivery, d.Position, count)
		}
		return d
	}
	key := dedup.PositionKey()
	var keys [2]dedup.Key
	for i := range keys {
		m := delivery(i + 1)
		if !m.Published.Equal(ahead) {
			t.Errorf("delivery %d: got published %v, want %v", i+1, m.Published, ahead)
		}
		var err error
		if keys[i], err = key(m); err != nil {
			t.Fatal(err)
		}
	}
	if string(keys[0]) != string(keys[1]) {
		t.Errorf("the deliveries have the keys %q and %q, want one", keys[0], keys[1])
	}
}

func TestRetryDelay(t *testing.T) {
	for _, after := range []time.Duration{math.MinInt64, -1, 0, minRetry, time.Second, time.Hour, maxRetry, math.MaxInt64 - 1, math.MaxInt64} {
		for range 100 {
			got := retryDelay(after)
			if least := min(max(after, minRetry), maxRetry); got < least || got > least+least/10 {
				t.Errorf("retryDelay(%v): got %v, want from %v to a tenth more", after, got, least)
			}
		}
	}
}

func TestLine(t *testing.T) {
	for in, want := range map[string]string{
		"plain":             "plain",
		"two\r\nlines\x7f!": "two  lines !",
		"bro\xffken":        "broken",
	} {
		if got := line(in); got != want {
			t.Errorf("line(%q): got %q, want %q", in, got, want)
		}
	}
	long := make([]rune, 300)
	for i := range long {
		long[i] = 'ä'
	}
	if got := line(string(long)); len(got) != 256 {
		t.Errorf("a long line: got %d bytes, want 256", len(got))
	}
}
