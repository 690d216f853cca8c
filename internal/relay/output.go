package relay

import (
	"strings"

	"github.com/oncequeue/oncequeue/dedup"
)

// Headers that the relay writes, beside dedup.HeaderSource and, in dead letters,
// those of dedup.DeadLetters. The prefix is reserved: what a message brings
// under it is dropped, so that these are the relay's word and nobody else's.
const (
	headerPrefix    = "Dedup-"
	HeaderID        = headerPrefix + "Id"        // dedup.ID of the key, in hexadecimal
	HeaderAmbiguous = headerPrefix + "Ambiguous" // "true": an earlier run may have published it
	HeaderStale     = headerPrefix + "Stale"     // "true": older than the store's memory
)

// output returns m as it goes to the topic: payload, key, timestamp and
// headers unchanged, and the relay's own headers added. It shares m's bytes.
func output(m *dedup.Message, topic string) *dedup.Message {
	out := &dedup.Message{Topic: topic, Key: m.Key, Value: m.Value, Position: m.Position, Published: m.Published, Claim: m.Claim}
	out.Headers = make(dedup.Headers, 0, len(m.Headers)+4)
	for _, h := range m.Headers {
		if !hasPrefix(h.Key, headerPrefix) {
			out.Headers = append(out.Headers, h)
		}
	}
	add := func(key, value string) {
		out.Headers = append(out.Headers, dedup.Header{Key: key, Value: []byte(value)})
	}
	if m.Claim.ID != (dedup.ID{}) { // a message without a key has none
		add(HeaderID, m.Claim.ID.String())
	}
	add(dedup.HeaderSource, m.Position.String())
	if m.Claim.Ambiguous {
		add(HeaderAmbiguous, "true")
	}
	if m.Claim.Stale {
		add(HeaderStale, "true")
	}
	return out
}

// carry returns m as it goes to the target to.
func (c *Config) carry(to Endpoint, m *dedup.Message) *dedup.Message {
	topic := to.For(m.Topic)
	if c.From.Kind == NATS {
		m = fromNATS(m)
	}
	out := output(m, topic)
	if to.Kind == NATS {
		toNATS(out)
	}
	return out
}

// line makes s one line of printable text, of a bounded length.
func line(s string) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	const most = 1024
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") // not half a character
	}
	return s
}
