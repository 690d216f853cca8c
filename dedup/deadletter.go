package dedup

import (
	"context"
	"strconv"
	"strings"
	"unicode"
)

// Headers that DeadLetters writes.
const (
	HeaderError    = "Dedup-Error"    // why, as one line of at most 1 KiB
	HeaderAttempts = "Dedup-Attempts" // how often the message was tried; 0 if it has no key
	HeaderSource   = "Dedup-Source"   // its Position: source/partition@offset
)

// DeadLetters returns an Options.DeadLetter that publishes the message, the
// headers above added, with publish: the Publish method of a Sink of either
// transport. That Sink needs a topic or subject of its own; a natstransport.Sink
// also SinkConfig.DeadLetters. Key, payload, timestamp and the other headers stay
// as they are, traceparent among them.
func DeadLetters(publish func(context.Context, []*Message) []error) func(ctx context.Context, m *Message, why error) error {
	return func(ctx context.Context, m *Message, why error) error {
		letter := *m
		letter.Headers.Set(HeaderError, []byte(line(why.Error())))
		letter.Headers.Set(HeaderAttempts, strconv.AppendInt(nil, int64(m.Claim.Attempt), 10))
		letter.Headers.Set(HeaderSource, []byte(m.Position.String()))
		return publish(ctx, []*Message{&letter})[0]
	}
}

// line makes s one line of text that any broker's header can carry.
func line(s string) string {
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
	const most = 1024
	return strings.ToValidUTF8(s[:min(len(s), most)], "") // not half a character
}
