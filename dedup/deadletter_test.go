package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestDeadLetters(t *testing.T) {
	down := errors.New("down")
	for name, c := range map[string]struct {
		why      error
		confirm  error
		had      dedup.Headers
		want     dedup.Headers
		position dedup.Position
	}{
		"headers stay": {
			why:      errors.New("no such customer"),
			position: dedup.Position{Source: "orders", Partition: 3, Offset: 17},
			had:      headers("traceparent", "00-4bf9-00f0-01", "x", "1", "x", "2"),
			want:     headers("traceparent", "00-4bf9-00f0-01", "x", "1", "x", "2", "Dedup-Error", "no such customer", "Dedup-Attempts", "2", "Dedup-Source", "orders/3@17"),
		},
		"died before": {
			why:  errors.New("again"),
			had:  headers("dedup-error", "then", "Dedup-Source", "elsewhere/0@1", "x", "1"),
			want: headers("dedup-error", "again", "Dedup-Source", "/0@0", "x", "1", "Dedup-Attempts", "2"),
		},
		"one line": {
			why:  errors.New("a\nb\x00c\xff \r\n"),
			want: headers("Dedup-Error", "a b c?", "Dedup-Attempts", "2", "Dedup-Source", "/0@0"),
		},
		"long": {
			why:  errors.New("x" + strings.Repeat("é", 1000)),
			want: headers("Dedup-Error", "x"+strings.Repeat("é", 511), "Dedup-Attempts", "2", "Dedup-Source", "/0@0"),
		},
		"not confirmed": {
			why:     errors.New("x"),
			confirm: down,
			want:    headers("Dedup-Error", "x", "Dedup-Attempts", "2", "Dedup-Source", "/0@0"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got *dedup.Message
			bury := dedup.DeadLetters(func(_ context.Context, ms []*dedup.Message) []error {
				got = ms[0]
				return []error{c.confirm}
			})
			m := &dedup.Message{Key: []byte("k"), Value: []byte("v"), Headers: c.had, Position: c.position, Claim: dedup.Claim{Attempt: 2}}
			before := fmt.Sprint(m.Headers)
			if err := bury(context.Background(), m, c.why); !errors.Is(err, c.confirm) {
				t.Errorf("got %v, want %v", err, c.confirm)
			}
			if string(got.Key) != "k" || string(got.Value) != "v" || got.Position != c.position {
				t.Errorf("got key %q, value %q, position %v", got.Key, got.Value, got.Position)
			}
			if fmt.Sprintf("%q", got.Headers) != fmt.Sprintf("%q", c.want) {
				t.Errorf("got headers %q, want %q", got.Headers, c.want)
			}
			if fmt.Sprint(m.Headers) != before {
				t.Errorf("the message's own headers became %q", m.Headers)
			}
		})
	}
}

// Messages that cannot be processed go to a topic of their own.
func ExampleDeadLetters() {
	publish := func(_ context.Context, ms []*dedup.Message) []error { // the Publish method of a Sink
		for _, h := range ms[0].Headers {
			fmt.Printf("%s: %s\n", h.Key, h.Value)
		}
		return make([]error, len(ms))
	}
	d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), &dedup.Options{DeadLetter: dedup.DeadLetters(publish)})
	if err != nil {
		log.Fatal(err)
	}
	defer shutdown(d)
	r := d.Do(context.Background(), order("order-1", "{}", 7), func(context.Context, *dedup.Message) ([]byte, error) {
		return nil, dedup.Permanent(errors.New("no such customer"))
	})
	fmt.Println(r.Outcome, r.Settled())
	// Output:
	// Idempotency-Key: order-1
	// Dedup-Error: no such customer
	// Dedup-Attempts: 1
	// Dedup-Source: orders/0@7
	// parked true
}
