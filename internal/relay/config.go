package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oncequeue/oncequeue/dedup"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// Config says what a Relay does.
type Config struct {
	From       Endpoint
	To         Endpoint
	DeadLetter Endpoint // the zero Endpoint: none
	Store      StoreURL
	Key        dedup.KeyFunc
	OnUnkeyed  dedup.Policy  // default: dedup.Options.OnUnkeyed
	Scope      string        // default: the source's group and the target
	TTL        time.Duration // default: dedup.Options.TTL
	Lease      time.Duration // default: dedup.Options.Lease
	VouchFrom  time.Time     // no message published since then was relayed without this store; zero: see the store
	Logger     *slog.Logger

	Listen  string            // where HTTP tells how the relay fares: HOST:PORT; empty: nowhere
	Version string            // for /statusz
	Flags   map[string]string // for /statusz: what is in force; secrets are left out there
}

// Check returns what is wrong with c as far as that can be told without
// connecting to anything or writing anything. It reads the files that are named.
func (c *Config) Check() error {
	letters := c.DeadLetter.Kind != ""
	switch {
	case c.same(c.From, c.To):
		return fmt.Errorf("%v is both source and target: the relay would read its own output for ever", c.To)
	case letters && c.same(c.From, c.DeadLetter):
		return fmt.Errorf("%v is both source and dead letters: each dead letter would come back for ever", c.DeadLetter)
	case letters && c.same(c.To, c.DeadLetter):
		return fmt.Errorf("%v is both target and dead letters: what could not be relayed would be among what was", c.DeadLetter)
	case !utf8.ValidString(c.Scope + c.DefaultScope()):
		return fmt.Errorf("scope %q is not UTF-8, so it cannot label metrics; name another", c.Scope)
	case c.Key == nil:
		return errors.New("there is no way to derive a key")
	}
	for _, e := range []Endpoint{c.From, c.To, c.DeadLetter} {
		if err := e.checkSecurity(); err != nil {
			return fmt.Errorf("%v: %w", e, err)
		}
	}
	_, err := dedup.New(memstore.New(nil), c.DefaultScope(), c.Key, &dedup.Options{TTL: c.TTL, Lease: c.Lease})
	return err
}

// DefaultScope returns the scope that is used when none is given.
func (c *Config) DefaultScope() string {
	return c.From.Reader() + " > " + string(c.To.Kind) + ":" + c.To.Topic
}

// same reports whether two endpoints can be one topic, as far as their URLs tell.
func (c *Config) same(a, b Endpoint) bool {
	return a.Kind == b.Kind && overlap(strings.Split(a.For(c.From.Topic), "."), strings.Split(b.For(c.From.Topic), ".")) &&
		slices.ContainsFunc(a.Hosts, func(host string) bool { return slices.Contains(b.Hosts, host) })
}

// overlap reports whether a subject can match both patterns, each given by its
// tokens. Kafka's topics are patterns without wildcards.
func overlap(a, b []string) bool {
	switch {
	case len(a) == 0 || len(b) == 0:
		return len(a) == len(b)
	case a[0] == ">":
		for n := 1; n <= len(b); n++ {
			if overlap(a[1:], b[n:]) {
				return true
			}
		}
		return false
	case b[0] == ">":
		return overlap(b, a)
	}
	return (a[0] == b[0] || a[0] == "*" || b[0] == "*") && overlap(a[1:], b[1:])
}
