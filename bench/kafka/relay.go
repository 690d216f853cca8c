package kafkabench

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/relay"
)

// relayed is dedup-relay from the topic to another one.
type relayed struct {
	*broker
	stored bool // else deduplication is off: no message has a key
}

func (o *relayed) round(ctx context.Context, r *harness.Round) (err error) {
	from, err := o.topic(ctx, r.Messages)
	if err != nil {
		return err
	}
	if err := o.createTarget(ctx); err != nil {
		return err
	}
	group := o.group()
	config := relay.Config{
		From:  relay.Endpoint{Kind: relay.Kafka, Hosts: o.addrs, Topic: from.name, Group: group},
		To:    relay.Endpoint{Kind: relay.Kafka, Hosts: o.addrs, Topic: o.target},
		Store: relay.StoreURL{Kind: "bolt", Dir: filepath.Join(r.Dir, "store")},
		Key:   dedup.HeaderKey(), Scope: group, TTL: work.TTL, VouchFrom: time.Unix(0, 0),
	}
	wantRelayed := int64(from.fresh)
	if !o.stored {
		config.Store = relay.StoreURL{Kind: "mem"}
		config.Key = func(*dedup.Message) (dedup.Key, error) { return "", dedup.ErrNoKey }
		config.OnUnkeyed = dedup.PolicyProcess
		wantRelayed = int64(r.Messages)
	}
	rel, err := relay.Open(ctx, config)
	if err != nil {
		return err
	}
	defer func() {
		if e := rel.Close(); err == nil {
			err = e
		}
	}()
	run, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	o.begin(r)
	go func() { done <- rel.Run(run) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s := rel.Summary(); s.Relayed+s.Duplicates < int64(r.Messages); s = rel.Summary() {
		select {
		case <-tick.C:
		case err := <-done:
			return fmt.Errorf("the relay stopped after %+v: %w", s, err)
		}
	}
	r.Stop()
	stop()
	if err = <-done; err != nil {
		return err
	}
	if s := rel.Summary(); s.Relayed != wantRelayed {
		err = fmt.Errorf("relayed %d of %d messages, want %d", s.Relayed, r.Messages, wantRelayed)
	}
	return err
}

// createTarget makes the topic that relays write to.
func (b *broker) createTarget(ctx context.Context) error {
	if b.target != "" {
		return nil
	}
	name := "orders.once-" + rand.Text()[:6]
	err := b.client(func(cl *kgo.Client) error {
		_, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, -1, nil, name)
		return err
	})
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	b.target = name
	return nil
}
