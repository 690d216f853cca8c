package main

import "context"

// broker is a broker as the demo uses it.
type broker interface {
	name() string
	source() string // value of the relay's flag --from
	target() string // value of the relay's flag --to
	publish(ctx context.Context, orders []order) error
	committed() (done, all int) // number of messages acknowledged, and published
	mark()                      // remembers how many are acknowledged now
	moved() bool                // reports whether more are acknowledged since mark, or all are
	output(ctx context.Context) ([]received, error)
	Close()
}

// received is one message that the relay has published.
type received struct {
	key       string
	payload   string
	ambiguous bool
}

const (
	ordersTopic = "orders"
	onceTopic   = "orders.once"
	group       = "demo" // the consumer group, or the durable consumer
)

func startBroker(ctx context.Context, kind string) (broker, error) {
	if kind == "nats" {
		return startNATS(ctx)
	}
	return startKafka()
}
