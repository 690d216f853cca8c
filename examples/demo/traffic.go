package main

import (
	"fmt"
	"math/rand/v2"
)

// order is one message as a producer publishes it.
type order struct {
	key      string // idempotency key
	customer string // partitioning key; if empty, any partition will do
	payload  []byte
}

// traffic is the messages that the producers publish: orders, some of them several times.
type traffic struct {
	orders []order
	unique int
}

// newTraffic makes n messages. 30 % of them are duplicates. Half of the duplicates are close to their
// original, like a producer's retry, and half are anywhere after it. One in four duplicates has no
// partitioning key, so that it can be in another partition than its original.
func newTraffic(n int, seed uint64) *traffic {
	rng := rand.New(rand.NewPCG(seed, 1))
	t := &traffic{}
	var originals []order
	for i := range n {
		if i > 0 && rng.IntN(100) < 30 {
			back := 1 + rng.IntN(len(originals))
			if rng.IntN(2) == 0 {
				back = min(back, 1+rng.IntN(50))
			}
			again := originals[len(originals)-back]
			if rng.IntN(4) == 0 {
				again.customer = ""
			}
			t.orders = append(t.orders, again)
			continue
		}
		o := order{
			key:      fmt.Sprintf("order-%016x", rng.Uint64()),
			customer: fmt.Sprintf("customer-%d", rng.IntN(2000)),
		}
		o.payload = fmt.Appendf(nil, `{"order":{"id":"%s","customer":"%s","cents":%d}}`, o.key, o.customer, 1+rng.IntN(100_000))
		originals = append(originals, o)
		t.orders = append(t.orders, o)
	}
	t.unique = len(originals)
	return t
}
