package relay

import (
	"strings"
	"testing"

	"github.com/oncequeue/oncequeue/dedup"
)

// A relay whose output can come in again is refused.
func TestLoops(t *testing.T) {
	for _, c := range []struct {
		from, to, letters string
		loops             bool
	}{
		{"kafka://h:1/a?group=g", "kafka://h:1/b", "kafka://h:1/c", false},
		{"kafka://h:1/a?group=g", "kafka://h:1/a", "", true},
		{"kafka://h:1/a?group=g", "kafka://g:1,h:1/{topic}", "", true},
		{"kafka://h:1/a?group=g", "kafka://g:1/a", "", false},
		{"kafka://h:1/a?group=g", "kafka://h:1/b", "kafka://h:1/a", true},
		{"kafka://h:1/a?group=g", "kafka://h:1/b", "kafka://h:1/b", true},
		{"kafka://h:1/a?group=g", "nats://h:1/a", "", false},
		{"nats://h:1/orders?consumer=c", "nats://h:1/orders.once", "nats://h:1/dead", false},
		{"nats://h:1/orders.>?consumer=c", "nats://h:1/orders.once", "", true},
		{"nats://h:1/orders.>?consumer=c", "nats://h:1/orders.{subject}", "", true},
		{"nats://h:1/orders.>?consumer=c", "nats://h:1/once.{subject}", "nats://h:1/dead", false},
		{"nats://h:1/orders.*?consumer=c", "nats://h:1/orders.eu.once", "", false},
		{"nats://h:1/orders.*?consumer=c", "nats://h:1/once", "nats://h:1/orders.dead", true},
		{"nats://h:1/>?consumer=c", "nats://h:1/once", "", true},
	} {
		var config Config
		var err error
		if config.From, err = ParseSource(c.from); err != nil {
			t.Fatal(err)
		}
		if config.To, err = ParseTarget(c.to); err != nil {
			t.Fatal(err)
		}
		if c.letters != "" {
			if config.DeadLetter, err = ParseTarget(c.letters); err != nil {
				t.Fatal(err)
			}
		}
		config.Key = dedup.PayloadHash()
		if err := config.Check(); (err != nil) != c.loops || err != nil && !strings.Contains(err.Error(), "is both") {
			t.Errorf("%s to %s, %s: got %v", c.from, c.to, c.letters, err)
		}
	}
}
