package kafkabench

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
	boltstore "github.com/oncequeue/oncequeue/store/bolt"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	kafkatransport "github.com/oncequeue/oncequeue/transport/kafka"
)

// inFlight is how many messages of a partition are in a batch, and how many
// handlers run at once.
const inFlight = 1024

// ours is a Consumer with batches, or lanes, enough to make the most of each fsync.
type ours struct {
	*broker
	batch  bool
	stored bool
}

func (o *ours) round(ctx context.Context, r *harness.Round) (err error) {
	topic, err := o.topic(ctx, r.Messages)
	if err != nil {
		return err
	}
	want := topic.fresh
	if !o.stored {
		want = r.Messages
	}
	d, closeStore, err := o.deduplicator(r)
	if err != nil {
		return err
	}
	defer func() {
		if e := closeStore(); err == nil {
			err = e
		}
	}()
	consumer, err := kafkatransport.NewConsumer(o.addrs, o.group(), []string{topic.name}, &kafkatransport.Config{BatchSize: inFlight, Lanes: inFlight})
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(ctx)
	defer stop()
	var handled atomic.Int64
	handle := func(n int) {
		if handled.Add(int64(n)) == int64(want) {
			r.Stop()
			stop()
		}
	}
	o.begin(r)
	if o.batch {
		err = consumer.RunBatch(run, d, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
			handle(len(ms))
			return make([]dedup.Answer, len(ms))
		})
	} else {
		err = consumer.Run(run, d, func(context.Context, *dedup.Message) ([]byte, error) {
			handle(1)
			return nil, nil
		})
	}
	if got := int(handled.Load()); err == nil && got != want {
		err = fmt.Errorf("%d of %d messages were handled, want %d", got, r.Messages, want)
	}
	return err
}

// deduplicator returns one whose scope no round had before: all keys of the round
// are new to it, in a store that grows from round to round.
func (o *ours) deduplicator(r *harness.Round) (d *dedup.Deduplicator, closeStore func() error, err error) {
	if !o.stored {
		unkeyed := func(*dedup.Message) (dedup.Key, error) { return "", dedup.ErrNoKey }
		d, err = dedup.New(memstore.New(nil), work.Scope, unkeyed, &dedup.Options{OnUnkeyed: dedup.PolicyProcess})
		return d, func() error { return d.Shutdown(context.Background()) }, err
	}
	store, err := boltstore.Open(filepath.Join(r.Dir, "store"), nil)
	if err != nil {
		return nil, nil, err
	}
	d, err = dedup.New(store, fmt.Sprint(work.Scope, r.Number), dedup.HeaderKey(), &dedup.Options{TTL: work.TTL})
	return d, func() error {
		if err := d.Shutdown(context.Background()); err != nil {
			return err
		}
		return store.Close()
	}, err
}
