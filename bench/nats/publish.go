package natsbench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
	natstransport "github.com/oncequeue/oncequeue/transport/nats"
)

// window is how many messages may wait for their confirmation at once.
const window = 1024

// target makes an empty stream, and a connection to write to it.
func (s *server) target(ctx context.Context, r *harness.Round) (jetstream.JetStream, string, error) {
	name := s.name("out")
	if _, err := s.js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}}); err != nil {
		return nil, "", err
	}
	js, err := s.connect()
	r.Server(s.cmd.Process.Pid)
	return js, name, err
}

// stored wants n messages in the stream, and removes it.
func (s *server) stored(ctx context.Context, name string, n int) error {
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return err
	}
	if got := stream.CachedInfo().State.Msgs; got != uint64(n) {
		return fmt.Errorf("%d messages were stored, want %d", got, n)
	}
	return s.js.DeleteStream(ctx, name)
}

// publish is the code that users of the client library write. The ids are as long as ours.
func (s *server) publish(ctx context.Context, r *harness.Round) error {
	js, name, err := s.target(ctx, r)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	b := claimed(r.Messages)
	r.Start()
	futures := make([]jetstream.PubAckFuture, len(b))
	for i, m := range b {
		if futures[i], err = js.PublishMsgAsync(asNATS(name, m), jetstream.WithMsgID(m.Claim.ID.String()), stall); err != nil {
			return err
		}
	}
	for _, f := range futures {
		select {
		case <-f.Ok():
		case err := <-f.Err():
			return err
		}
	}
	r.Stop()
	return s.stored(ctx, name, r.Messages)
}

// sink is a natstransport.Sink under four callers, as lanes of a relay have it.
func (s *server) sink(ctx context.Context, r *harness.Round) error {
	js, name, err := s.target(ctx, r)
	if err != nil {
		return err
	}
	defer js.Conn().Close()
	sink, err := natstransport.NewSink(js, name, &natstransport.SinkConfig{Window: window})
	if err != nil {
		return err
	}
	b := claimed(r.Messages)
	const callers = 4
	r.Start()
	var next atomic.Int64
	var wg sync.WaitGroup
	var errs [callers]error
	for i := range callers {
		wg.Go(func() {
			for {
				to := int(next.Add(work.BatchSize))
				from := to - work.BatchSize
				if from >= len(b) {
					return
				}
				errs[i] = errors.Join(errs[i], errors.Join(sink.Publish(ctx, b[from:min(to, len(b))])...))
			}
		})
	}
	wg.Wait()
	r.Stop()
	return errors.Join(errors.Join(errs[:]...), sink.Close(), s.stored(ctx, name, r.Messages))
}

// claimed returns messages as a handler gets them.
func claimed(n int) []*dedup.Message {
	b := work.New(1).Fresh(n)
	for i, m := range b.Messages {
		m.Claim = dedup.Claim{ID: dedup.NewID(work.Scope, dedup.Key(b.Keys[i].String())), Token: 1}
	}
	return b.Messages
}
