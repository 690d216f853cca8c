package natstransport

import (
	"context"
	"strings"

	"github.com/oncequeue/oncequeue/dedup"
)

// HeaderReplyTo is a header of messages: the subject to which Config.Reply sends the reply. It
// is needed because a message that JetStream delivers no longer has the inbox with which it was
// published.
const HeaderReplyTo = "Dedup-Reply-To"

// reply sends the result of a settled message to the subject that it names.
// One that is lost can be had by publishing the message again.
func (s *session) reply(d *delivery, r dedup.Result) {
	to, ok := d.message.Headers.Get(HeaderReplyTo)
	if !ok {
		return
	}
	subject := string(to)
	// Subjects that begin with $ are the server's own.
	if err := checkSubject(subject); err != nil || strings.HasPrefix(subject, "$") {
		s.log.Warn("a message names no subject that can be replied to", "header", HeaderReplyTo, "position", d.message.Position.String())
		return
	}
	out := respond(r)
	if err := sendResponse(s.conn, subject, &out); err != nil {
		s.log.Warn("a reply could not be sent", "position", d.message.Position.String(), "err", err)
	}
}

// replyingBatch is replying for a batch handler.
func replyingBatch(h dedup.BatchHandler) dedup.BatchHandler {
	return func(ctx context.Context, ms []*dedup.Message) []dedup.Answer {
		answers := h(ctx, ms)
		for i, a := range answers {
			answers[i].Result, answers[i].Err = recordable(a.Result, a.Err)
		}
		return answers
	}
}
