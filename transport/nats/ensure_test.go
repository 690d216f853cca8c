package natstransport

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/internal/brokertest"
)

func TestEnsureCreatesWhatIsNotThere(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	c := newConsumer(t, js, quick(t))
	stream := jetstream.StreamConfig{Subjects: []string{"s.>"}}
	want(t, c.Ensure(t.Context(), jetstream.StreamConfig{}, jetstream.ConsumerConfig{}), "stream not found", "nats stream add S")
	want(t, c.Ensure(t.Context(), stream, jetstream.ConsumerConfig{FilterSubject: "s.x"}))
	got := info(t, js).Config
	if got.AckPolicy != jetstream.AckExplicitPolicy || got.MaxDeliver != -1 || got.FilterSubject != "s.x" {
		t.Errorf("got %+v, want an explicit consumer without max_deliver, filtered by s.x", got)
	}
	// What exists stays as it is.
	want(t, c.Ensure(t.Context(), jetstream.StreamConfig{Subjects: []string{"other"}}, jetstream.ConsumerConfig{FilterSubject: "s.y"}))
	s, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if subjects := s.CachedInfo().Config.Subjects; subjects[0] != "s.>" || info(t, js).Config.FilterSubject != "s.x" {
		t.Errorf("got subjects %v and filter %s: Ensure changed what existed", subjects, info(t, js).Config.FilterSubject)
	}
}

func TestEnsureRefusesWhatIsUnsafe(t *testing.T) {
	js := connect(t, brokertest.NewNATS(t, nil))
	c := newConsumer(t, js, quick(t))
	stream := jetstream.StreamConfig{Subjects: []string{"s.>"}}
	want(t, c.Ensure(t.Context(), stream, jetstream.ConsumerConfig{AckPolicy: jetstream.AckAllPolicy}), "AckAll")
	if _, err := js.Stream(t.Context(), "S"); err == nil {
		t.Error("it created the stream")
	}
	newStream(t, js, func(o *jetstream.ConsumerConfig) { o.MaxDeliver = 3 })
	want(t, c.Ensure(t.Context(), stream, jetstream.ConsumerConfig{}), "max_deliver 3", "--max-deliver=-1")
}
