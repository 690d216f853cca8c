// Package kafkabench compares transport/kafka with plain consumers and with
// Watermill, on one broker.
package kafkabench

import (
	"context"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/oncequeue/oncequeue/bench/harness"
)

// Suite consumes from kfake in a process of its own. No broker is faster, so the
// suite compares the consumers.
var Suite = harness.Suite{
	Name:     "kafka",
	What:     "consumers of 6 partitions, kfake in its own process",
	Messages: 200_000,
	Servers:  map[string]harness.Server{"kfake": serve},
	Declare: func(_ context.Context, r *harness.Run) error {
		server, err := r.Serve("kfake")
		if err != nil {
			return err
		}
		declare(r, &broker{addrs: []string{server.Address}, pid: server.PID})
		return nil
	},
}

// Real is the same from the brokers that KAFKA_BROKERS names.
var Real = harness.Suite{
	Name:     "kafka-real",
	What:     "consumers of 6 partitions, the brokers of KAFKA_BROKERS",
	Messages: 200_000,
	OnDemand: true,
	Declare: func(_ context.Context, r *harness.Run) error {
		list := os.Getenv("KAFKA_BROKERS")
		if list == "" {
			return harness.Skip("KAFKA_BROKERS is not set: scripts/kafka.sh start 4.4.0 starts one, and prints its address")
		}
		declare(r, &broker{addrs: strings.Split(list, ",")})
		return nil
	},
}

func serve(ctx context.Context, ready func(string)) error {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		return err
	}
	defer c.Close()
	ready(c.ListenAddrs()[0])
	<-ctx.Done()
	return nil
}

func declare(r *harness.Run, b *broker) {
	r.Cleanup(b.close)
	r.Contend(harness.Contender{
		Name: "readers", Share: 2,
		What:  "kafka-go's ConsumerGroup and a Reader for each partition, a commit per 1,000 messages",
		Round: b.readers,
	})
	r.Contend(harness.Contender{
		Name: "bare", Share: 2,
		What:  "ours, RunBatch without keys, hence without a store; batches of 1,024",
		Round: (&ours{broker: b, batch: true}).round,
	})
	r.Contend(harness.Contender{
		Name:  "batch",
		What:  "ours, RunBatch with store/bolt; batches of 1,024",
		Round: (&ours{broker: b, batch: true, stored: true}).round,
	})
	r.Contend(harness.Contender{
		Name: "run", Share: 0.5,
		What:  "ours, Run with store/bolt; 1,024 lanes",
		Round: (&ours{broker: b, stored: true}).round,
	})
	r.Contend(harness.Contender{
		Name: "relay", Share: 0.5,
		What:  "dedup-relay to another topic, with store/bolt",
		Round: (&relayed{broker: b, stored: true}).round,
	})
	r.Contend(harness.Contender{
		Name: "relay-off", Share: 0.5,
		What:  "dedup-relay to another topic, without deduplication",
		Round: (&relayed{broker: b}).round,
	})
	r.Contend(harness.Contender{
		Name: "watermill", Share: 0.5,
		What:  "Watermill's router with its Deduplicator, in memory: nothing survives, and a failed message is lost",
		Round: b.watermill,
	})
	r.Figure(harness.Figure{What: "bare / readers", Unit: "x", Bar: 0.9, Goal: 1, From: harness.Ratio("bare", "readers")})
	r.Figure(harness.Figure{What: "batch / bare", Unit: "x", Bar: 0.3, Goal: 0.4, From: harness.Ratio("batch", "bare")})
	r.Figure(harness.Figure{What: "batch / watermill, which loses failed messages", Unit: "x", Bar: 2, From: harness.Ratio("batch", "watermill")})
	r.Figure(harness.Figure{What: "run / batch", Unit: "x", Bar: 0.4, From: harness.Ratio("run", "batch")})
	r.Figure(harness.Figure{What: "relay / the same with dedup off", Unit: "x", Bar: 0.4, From: harness.Ratio("relay", "relay-off")})
	r.Figure(harness.Figure{What: "allocations per message, bare", AtMost: true, Bar: 6, From: harness.Median(harness.Allocs, "bare")})
}
