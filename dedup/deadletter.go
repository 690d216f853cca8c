package dedup

import (
	"context"
	"strconv"
	"strings"
	"unicode"
)

// Headers that [DeadLetters] adds to a dead letter.
const (
	HeaderError    = "Dedup-Error"    // why the message was parked: one line of at most 1 KiB
	HeaderAttempts = "Dedup-Attempts" // Claim.Attempt in decimal; 0 if no claim was granted
	HeaderSource   = "Dedup-Source"   // Position of the message: source/partition@offset
)

// DeadLetters returns a function for Options.DeadLetter. It publishes the message
// with the three headers above added. Key, payload, timestamp and the other headers
// stay as they are, traceparent among them.
//
// publish is the Publish method of a kafkatransport.Sink or natstransport.Sink. That
// Sink needs a topic or subject of its own. A natstransport.Sink also needs
// SinkConfig.DeadLetters.
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
