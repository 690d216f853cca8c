package natstransport

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestSinkCheck(t *testing.T) {
	n := brokertest.NewNATS(t, nil)
	js := connect(t, n)
	target(t, js, jetstream.StreamConfig{Duplicates: time.Second})
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "SILENT", Subjects: []string{"silent"}, NoAck: true}); err != nil {
		t.Fatal(err)
	}
	counted := &countingHandler{}
	for _, test := range []struct {
		subject string
		config  SinkConfig
		want    []string
	}{
		{"out.x", SinkConfig{Logger: slog.New(counted)}, nil},
		{"", SinkConfig{}, nil},
		{"out.x", SinkConfig{Stream: "S"}, []string{"stored by stream OUT, not by S"}},
		{"nowhere", SinkConfig{}, []string{"no stream stores the subject nowhere", "nats stream add NAME --subjects=nowhere"}},
		{"silent", SinkConfig{}, []string{"nats stream edit SILENT --ack"}},
	} {
		want(t, newSink(t, js, test.subject, &test.config).Check(t.Context()), test.want...)
	}
	if got := counted.count("the duplicate window of the stream is short"); got != 1 {
		t.Errorf("remarks on the window of one second: got %d, want 1", got)
	}
	n.Stop()
	s := newSink(t, js, "out.x", &SinkConfig{Timeout: 50 * time.Millisecond})
	want(t, s.Check(t.Context()), "check the address")
}

// What keeps a stream from dropping repeats is said once, however often it is asked.
func TestSinkCheckRemarks(t *testing.T) {
	const window, retention, ttl, sources = "the duplicate window of the stream is short", "the stream forgets the ids", "the stream takes messages with a TTL", "the stream has sources"
	js := connect(t, brokertest.NewNATS(t, nil))
	if _, err := js.CreateStream(deadline(t), jetstream.StreamConfig{Name: "ORIGIN", Subjects: []string{"origin"}}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		stream jetstream.StreamConfig
		sink   SinkConfig
		want   []string
	}{
		{jetstream.StreamConfig{Name: "FIT"}, SinkConfig{}, nil},
		{jetstream.StreamConfig{Name: "SHORT", Duplicates: time.Minute}, SinkConfig{}, []string{window}},
		{jetstream.StreamConfig{Name: "LETTERS", Duplicates: time.Minute}, SinkConfig{DeadLetters: true}, nil},
		{jetstream.StreamConfig{Name: "SLOW"}, SinkConfig{Redelivery: time.Minute}, []string{window}},
		{jetstream.StreamConfig{Name: "LONG", Duplicates: 3 * time.Minute}, SinkConfig{Redelivery: time.Minute}, nil},
		{jetstream.StreamConfig{Name: "WORK", Retention: jetstream.WorkQueuePolicy}, SinkConfig{}, []string{retention}},
		{jetstream.StreamConfig{Name: "INTEREST", Retention: jetstream.InterestPolicy}, SinkConfig{}, []string{retention}},
		{jetstream.StreamConfig{Name: "TTL", AllowMsgTTL: true}, SinkConfig{}, []string{ttl}},
		{jetstream.StreamConfig{Name: "SOURCES", Sources: []*jetstream.StreamSource{{Name: "ORIGIN"}}}, SinkConfig{}, []string{sources, window}},
	} {
		subject := "to." + test.stream.Name
		test.stream.Subjects = []string{subject}
		if _, err := js.CreateStream(deadline(t), test.stream); err != nil {
			t.Fatal(err)
		}
		counted := &countingHandler{}
		test.sink.Logger = slog.New(counted)
		s := newSink(t, js, subject, &test.sink)
		for range 2 {
			want(t, s.Check(t.Context()))
		}
		for _, remark := range []string{window, retention, ttl, sources} {
			expected := 0
			for _, w := range test.want {
				if w == remark {
					expected = 1
				}
			}
			if got := counted.count(remark); got != expected {
				t.Errorf("%s: got %d of %q, want %d", test.stream.Name, got, remark, expected)
			}
		}
	}
}
