package dedup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"

	"github.com/oncequeue/oncequeue/dedup"
)

// keysOf returns the keys of messages that have one.
func keysOf(key dedup.KeyFunc, ms ...*dedup.Message) []dedup.Key {
	keys := make([]dedup.Key, len(ms))
	for i, m := range ms {
		var err error
		if keys[i], err = key(m); err != nil {
			log.Fatal(err)
		}
	}
	return keys
}

// The key is the value of the first of these headers that the message has.
func ExampleHeaderKey() {
	key := dedup.HeaderKey("Order-Id", "Idempotency-Key")
	m := &dedup.Message{Headers: dedup.Headers{{Key: "order-id", Value: []byte("17")}}}
	fmt.Println(string(keysOf(key, m)[0]))

	m.Headers = append(m.Headers, dedup.Header{Key: "Order-Id", Value: []byte("18")})
	_, err := key(m)
	fmt.Println("two values are an error:", err != nil)

	_, err = key(&dedup.Message{})
	fmt.Println("no key:", errors.Is(err, dedup.ErrNoKey))
	// Output:
	// 17
	// two values are an error: true
	// no key: true
}

// The key consists of two fields. The other fields, and the order of the fields, do not matter.
func ExampleJSONKey() {
	key := dedup.JSONKey("customer.id", "order")
	keys := keysOf(key,
		&dedup.Message{Value: []byte(`{"customer":{"id":7},"order":17}`)},
		&dedup.Message{Value: []byte(`{"order":17,"customer":{"name":"x","id":7},"sent":"12:00"}`)},
		&dedup.Message{Value: []byte(`{"order":7,"customer":{"id":17}}`)},
	)
	fmt.Println(keys[0] == keys[1], keys[0] == keys[2])

	_, err := key(&dedup.Message{Value: []byte(`{"order":17}`)})
	fmt.Println("no key:", errors.Is(err, dedup.ErrNoKey))
	// Output:
	// true false
	// no key: true
}

// Messages with equal payloads are one message, within a topic.
func ExamplePayloadHash() {
	keys := keysOf(dedup.PayloadHash(),
		&dedup.Message{Topic: "orders", Value: []byte("order 17")},
		&dedup.Message{Topic: "orders", Value: []byte("order 17")},
		&dedup.Message{Topic: "orders", Value: []byte("order 18")},
		&dedup.Message{Topic: "returns", Value: []byte("order 17")},
	)
	fmt.Println(keys[0] == keys[1], keys[0] == keys[2], keys[0] == keys[3])
	// Output: true false false
}

// A redelivery has the key of the first delivery. A copy that was published again has another one.
func ExamplePositionKey() {
	keys := keysOf(dedup.PositionKey(), order("a", "{}", 17), order("a", "{}", 17), order("a", "{}", 18))
	fmt.Println(keys[0] == keys[1], keys[0] == keys[2])
	// Output: true false
}

// The producer counts the orders of each topic from 1, so the key alone does not name a message.
func ExamplePerTopic() {
	orders := &dedup.Message{Topic: "orders"}
	orders.Headers.SetKey("1")
	returns := &dedup.Message{Topic: "returns"}
	returns.Headers.SetKey("1")
	for _, key := range []dedup.KeyFunc{dedup.HeaderKey(), dedup.PerTopic(dedup.HeaderKey())} {
		keys := keysOf(key, orders, returns)
		fmt.Println("the same message:", keys[0] == keys[1])
	}
	// Output:
	// the same message: true
	// the same message: false
}

// The key comes from a header. If there is none, it comes from the payload.
func ExampleFirstOf() {
	key := dedup.FirstOf(dedup.HeaderKey(), dedup.JSONKey("order.id"))
	header := order("from the producer", `{"order":{"id":17}}`, 0)
	payload := &dedup.Message{Value: []byte(`{"order":{"id":17}}`)}
	neither := &dedup.Message{Value: []byte(`{"ping":true}`)}

	fmt.Println(string(keysOf(key, header)[0]))
	fmt.Println(keysOf(key, payload)[0] == keysOf(dedup.JSONKey("order.id"), payload)[0])
	_, err := key(neither)
	fmt.Println("no key:", errors.Is(err, dedup.ErrNoKey))
	// Output:
	// from the producer
	// true
	// no key: true
}

// A key function of your own: the customer from a header and the order from the payload. Quotes keep
// the two parts apart.
func ExampleKeyFunc() {
	var key dedup.KeyFunc = func(m *dedup.Message) (dedup.Key, error) {
		customer, ok := m.Headers.Get("Customer")
		if !ok {
			return "", fmt.Errorf("%w: no header Customer", dedup.ErrNoKey)
		}
		var order struct{ Number int }
		if err := json.Unmarshal(m.Value, &order); err != nil {
			return "", err
		}
		return dedup.Key(fmt.Sprintf("%q %d", customer, order.Number)), nil
	}
	m := &dedup.Message{Value: []byte(`{"number":17}`)}
	m.Headers.Set("Customer", []byte("c-7"))
	fmt.Println(string(keysOf(key, m)[0]))
	// Output: "c-7" 17
}

// The producer writes the key, and the consumer finds it.
func ExampleHeaders_SetKey() {
	m := &dedup.Message{Value: []byte("{}")}
	m.Headers.SetKey("order-17")
	fmt.Println(string(keysOf(dedup.HeaderKey(), m)[0]))
	// Output: order-17
}

// Names are compared without regard to case.
func ExampleHeaders_Get() {
	h := dedup.Headers{{Key: "traceparent", Value: []byte("00-4bf9")}}
	h.Set("Customer", []byte("c-7"))
	customer, ok := h.Get("customer")
	fmt.Println(string(customer), ok)
	_, ok = h.Get("order")
	fmt.Println(ok)
	// Output:
	// c-7 true
	// false
}

// Scopes keep the keys of two uses of a store apart.
func ExampleNewID() {
	billing, shipping := dedup.NewID("billing", "order-1"), dedup.NewID("shipping", "order-1")
	fmt.Println(billing == shipping, billing == dedup.NewID("billing", "order-1"))
	// Output: false true
}
