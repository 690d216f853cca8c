package main

import "context"

// broker is what the demo needs of one.
type broker interface {
	name() string
	source() string // --from
	target() string // --to
	publish(ctx context.Context, orders []order) error
	committed() (done, all int) // messages acknowledged, of those published
	mark()                      // remember the commits of now...
	moved() bool                // ...and tell whether there were more since, or nothing is left
	output(ctx context.Context) ([]received, error)
	Close()
}

// received is one message of the output.
type received struct {
	key       string
	payload   string
	ambiguous bool
}

const (
	ordersTopic = "orders"
	onceTopic   = "orders.once"
	group       = "demo" // or the durable consumer
)

func startBroker(ctx context.Context, kind string) (broker, error) {
	if kind == "nats" {
		return startNATS(ctx)
	}
	return startKafka()
}
