package natstransport

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestCheck(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	explicit := func(o jetstream.ConsumerConfig) jetstream.ConsumerConfig {
		o.AckPolicy = jetstream.AckExplicitPolicy
		return o
	}
	for name, test := range map[string]struct {
		config jetstream.ConsumerConfig
		want   []string // in the error; none: it passes
	}{
		"fit":           {explicit(jetstream.ConsumerConfig{}), nil},
		"backoff":       {explicit(jetstream.ConsumerConfig{BackOff: []time.Duration{time.Second}, MaxDeliver: -1}), nil},
		"max-deliver":   {explicit(jetstream.ConsumerConfig{MaxDeliver: 5}), []string{"max_deliver 5", "nats consumer edit S max-deliver --max-deliver=-1"}},
		"ack-none":      {jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy}, []string{"ack policy AckNone", "nats consumer add S ack-none --pull --ack=explicit --max-deliver=-1"}},
		"ack-all":       {jetstream.ConsumerConfig{AckPolicy: jetstream.AckAllPolicy}, []string{"ack policy AckAll", "nats consumer rm S ack-all"}},
		"headers-only":  {explicit(jetstream.ConsumerConfig{HeadersOnly: true}), []string{"without payloads", "nats consumer edit S headers-only --no-headers-only"}},
		"groups":        {explicit(jetstream.ConsumerConfig{PriorityPolicy: jetstream.PriorityPolicyOverflow, PriorityGroups: []string{"g"}}), []string{`["g"]`, "nats consumer add S groups --pull"}},
		"not-durable":   {explicit(jetstream.ConsumerConfig{Name: "not-durable", InactiveThreshold: time.Hour}), []string{"not durable", "nats consumer add S not-durable"}},
		"does-not-live": {jetstream.ConsumerConfig{Name: "-"}, []string{"consumer not found", "nats consumer add S does-not-live"}},
	} {
		t.Run(name, func(t *testing.T) {
			o := test.config
			if o.Name == "" {
				o.Durable = name
			}
			if o.Name != "-" {
				if _, err := js.CreateConsumer(deadline(t), "S", o); err != nil {
					t.Fatal(err)
				}
			}
			c, err := NewConsumer(js, "S", name, quick(t))
			if err != nil {
				t.Fatal(err)
			}
			want(t, c.Check(t.Context()), test.want...)
		})
	}
	t.Run("push", func(t *testing.T) {
		if _, err := js.CreatePushConsumer(deadline(t), "S", jetstream.ConsumerConfig{Durable: "push", DeliverSubject: "x", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
			t.Fatal(err)
		}
		c, err := NewConsumer(js, "S", "push", quick(t))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.Check(t.Context()), "must be pulled", "nats consumer add S push --pull")
	})
	t.Run("no stream", func(t *testing.T) {
		c, err := NewConsumer(js, "NONE", "c", quick(t))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.Check(t.Context()), "stream not found", "nats stream add NONE")
	})
	t.Run("reconnects", func(t *testing.T) {
		c, err := NewConsumer(connect(t, n, nats.MaxReconnects(60)), "S", "fit", quick(t))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.Check(t.Context()), "after 60 tries", "nats.MaxReconnects(-1)")
	})
	t.Run("closed", func(t *testing.T) {
		js := connect(t, n)
		js.Conn().Close()
		c, err := NewConsumer(js, "S", "fit", quick(t))
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.Check(t.Context()), "closed", "nats.MaxReconnects(-1)")
	})
	t.Run("no server", func(t *testing.T) {
		n := brokertest.NewNATS(t, nil)
		js := connect(t, n)
		n.Stop()
		o := quick(t)
		o.patience = 50 * time.Millisecond
		c, err := NewConsumer(js, "S", "fit", o)
		if err != nil {
			t.Fatal(err)
		}
		want(t, c.Check(t.Context()), "S", "check the address")
	})
}

// want wants each of the texts in err; with none, no error.
func want(t *testing.T, err error, texts ...string) {
	t.Helper()
	if len(texts) == 0 && err != nil {
		t.Errorf("got %v, want nil", err)
	}
	for _, text := range texts {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got error %v, want %q in it", err, text)
		}
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("got error %q, want one line", err)
	}
}

func TestConfigDefaults(t *testing.T) {
	c, err := (*Config)(nil).filled()
	if err != nil {
		t.Fatal(err)
	}
	if c.Workers != 256 || c.BatchSize != 256 || c.Prefetch != 0 || c.PrefetchBytes != 64<<20 || c.OrderBy != nil || c.ConfirmAcks || c.DrainTimeout != 20*time.Second || c.Logger == nil {
		t.Errorf("got %+v", c)
	}
}

func TestConfigRefused(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	for _, test := range []struct {
		js              jetstream.JetStream
		stream, durable string
		config          *Config
		want            string
	}{
		{nil, "S", "c", nil, "jetstream.New(conn)"},
		{js, "", "c", nil, "stream has no name"},
		{js, "S", "", nil, "consumer has no name"},
		{js, "S.x", "c", nil, `"S.x" is no name of a stream`},
		{js, "S", "c d", nil, `"c d" is no name of a consumer`},
		{js, "S", "c", &Config{Workers: -1}, "Workers -1 is negative"},
		{js, "S", "c", &Config{BatchSize: 1025}, "BatchSize 1025 is more than 1024"},
		{js, "S", "c", &Config{Prefetch: -1}, "Prefetch -1 is negative"},
		{js, "S", "c", &Config{PrefetchBytes: -1}, "PrefetchBytes -1 is negative"},
		{js, "S", "c", &Config{DrainTimeout: -1}, "DrainTimeout -1ns is negative"},
	} {
		_, err := NewConsumer(test.js, test.stream, test.durable, test.config)
		want(t, err, test.want)
	}
	for _, test := range []struct {
		js      jetstream.JetStream
		subject string
		config  *SinkConfig
		want    string
	}{
		{nil, "s", nil, "jetstream.New(conn)"},
		{js, "s.*", nil, "wildcard"},
		{js, "s..x", nil, "empty"},
		{js, "s x", nil, "spaces"},
		{js, "s", &SinkConfig{Stream: "a.b"}, "no name of a stream"},
		{js, "s", &SinkConfig{Window: -1}, "Window -1 is negative"},
		{js, "s", &SinkConfig{Redelivery: -1}, "Redelivery -1ns is negative"},
		{js, "s", &SinkConfig{Timeout: -1}, "is negative"},
	} {
		_, err := NewSink(test.js, test.subject, test.config)
		want(t, err, test.want)
	}
}

func TestConfigIsCopied(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	var c Config
	var s SinkConfig
	if _, err := NewConsumer(js, "S", "c", &c); err != nil {
		t.Fatal(err)
	}
	if _, err := NewSink(js, "s", &s); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Config{}) {
		t.Errorf("NewConsumer wrote to its Config: %+v", c)
	}
	if s.Window != 0 || s.Timeout != 0 || s.Route != "" || s.MsgID != nil || s.Logger != nil {
		t.Errorf("NewSink wrote to its SinkConfig: %+v", s)
	}
}
