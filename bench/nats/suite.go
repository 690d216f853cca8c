// Package natsbench compares transport/nats with loops written by hand on the client
// library, and with Watermill. The server is a process of its own, with file storage.
package natsbench

import (
	"context"

	"github.com/oncequeue/oncequeue/bench/harness"
)

// Suite is a stream consumed from beginning to end, and one written to.
var Suite = harness.Suite{
	Name:     "nats",
	What:     "JetStream consumed and written to, beside bare loops and Watermill; nats-server in its own process",
	Messages: 100_000,
	Declare:  declare,
}

func declare(ctx context.Context, r *harness.Run) error {
	s, err := startServer(r.Dir)
	if err != nil {
		return err
	}
	r.Cleanup(s.stop)
	contend := func(name, what string, share float64, c consumer) {
		r.Contend(harness.Contender{Name: name, What: what, Share: share, Round: func(ctx context.Context, r *harness.Round) error {
			return s.consume(ctx, r, c)
		}})
	}
	contend("bare", "Consume and Ack, by hand: a crash runs messages again, and nobody knows", 1, bare{})
	contend("mem", "ours, RunBatch with store/mem", 1, ours{batch: true})
	contend("run", "ours, Run with store/mem: a handler call for each message", 1, ours{})
	contend("bolt", "ours, RunBatch with store/bolt, 20 % duplicates", 1, ours{batch: true, bolt: true})
	contend("double", "Consume with 64 DoubleAcks in flight, by hand", 0.5, double{})
	contend("confirm", "ours, RunBatch with store/mem and ConfirmAcks", 0.5, ours{batch: true, confirm: true})
	contend("watermill", "Watermill's pkg/jetstream and router with its Deduplicator in memory, 20 % duplicates", 0.1, inWatermill{})
	contend("healthy", "ours, RunBatch with store/mem, one try in a thousand fails, a second does not", 1, ours{batch: true, poison: once})
	contend("poison", "the same, but each of those fails until it is parked after three tries", 1, ours{batch: true, poison: always})
	r.Contend(harness.Contender{Name: "publish", What: "PublishMsgAsync with ids and a window of 1,024, by hand", Round: s.publish})
	r.Contend(harness.Contender{Name: "sink", What: "ours, Sink with the same window, four callers with batches of 256", Round: s.sink})

	r.Figure(harness.Figure{What: "RunBatch with store/mem / Consume and Ack", Unit: "x", Bar: 0.8, Goal: 0.95, From: harness.Ratio("mem", "bare")})
	r.Figure(harness.Figure{What: "Run with store/mem / Consume and Ack", Unit: "x", From: harness.Ratio("run", "bare")})
	r.Figure(harness.Figure{What: "RunBatch with store/bolt, 20 % duplicates / Consume and Ack", Unit: "x", Bar: 0.6, Goal: 0.8, From: harness.Ratio("bolt", "bare")})
	r.Figure(harness.Figure{What: "ConfirmAcks / 64 DoubleAcks in flight", Unit: "x", Bar: 0.85, From: harness.Ratio("confirm", "double")})
	r.Figure(harness.Figure{What: "RunBatch with store/bolt / Watermill with its Deduplicator", Unit: "x", Bar: 5, From: harness.Ratio("bolt", "watermill")})
	r.Figure(harness.Figure{What: "rate of the healthy beside poison / beside none", Unit: "x", Bar: 0.9, From: harness.Ratio("poison", "mem")})
	r.Figure(harness.Figure{What: "Sink / PublishMsgAsync with the same window", Unit: "x", Bar: 0.9, From: harness.Ratio("sink", "publish")})
	return nil
}
