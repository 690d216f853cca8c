package natstransport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Check returns an error if the server does not answer, or if no stream stores messages of the
// subject. It logs a warning if the settings of the stream can make it store a message twice
// that is published again after a crash.
func (s *Sink) Check(ctx context.Context) error {
	if s.conn.IsClosed() {
		return errClosed
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.Timeout)
	defer cancel()
	if s.subject == "" {
		if _, err := s.js.AccountInfo(ctx); err != nil {
			return fmt.Errorf("natstransport: %w; check the address, and that JetStream is enabled there", err)
		}
		return nil
	}
	name, err := s.js.StreamNameBySubject(ctx, s.subject)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		stream := orDefault(s.config.Stream, "NAME")
		return fmt.Errorf("natstransport: no stream stores the subject %s; correct it, or create one: nats stream add %s --subjects=%s --defaults", s.subject, stream, s.subject)
	case err != nil:
		return fmt.Errorf("natstransport: stream of subject %s: %w; check the address, and that JetStream is enabled there", s.subject, err)
	case s.config.Stream != "" && name != s.config.Stream:
		return fmt.Errorf("natstransport: subject %s is stored by stream %s, not by %s; correct either", s.subject, name, s.config.Stream)
	}
	stream, err := s.js.Stream(ctx, name)
	if err != nil {
		return fmt.Errorf("natstransport: stream %s: %w", name, err)
	}
	o := stream.CachedInfo().Config
	switch {
	case o.NoAck:
		return fmt.Errorf("natstransport: stream %s confirms nothing (no_ack), so that no message could be recorded: nats stream edit %s --ack", name, name)
	case o.Sealed:
		return fmt.Errorf("natstransport: stream %s is sealed and stores nothing more; choose another subject", name)
	}
	s.doubt(o)
	return nil
}

// doubt logs what keeps the stream from dropping what is published again, after a
// crash between the confirmation and the record.
func (s *Sink) doubt(o jetstream.StreamConfig) {
	if s.config.DeadLetters {
		return // they are not to be dropped
	}
	if window := max(2*time.Minute, 3*s.config.Redelivery); o.Duplicates < window {
		s.remark("the duplicate window of the stream is short: what is published again after a crash is stored twice", "stream", o.Name, "window", o.Duplicates,
			"fix", fmt.Sprintf("nats stream edit %s --dupe-window=%v", o.Name, window))
	}
	if o.Retention != jetstream.LimitsPolicy {
		s.remark("the stream forgets the ids of messages that were acknowledged, when its server restarts: what is published again after that is stored twice", "stream", o.Name, "retention", o.Retention)
	}
	if o.AllowMsgTTL {
		s.remark("the stream takes messages with a TTL of their own, and forgets the ids of those that have passed, when its server restarts", "stream", o.Name)
	}
	if len(o.Sources) > 0 {
		s.remark("the stream has sources, whose ids share its duplicate window: a message of theirs with the id of one published here is dropped for good", "stream", o.Name)
	}
}

// remark logs once, however often Check is called.
func (s *Sink) remark(text string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remarks[text] {
		return
	}
	if s.remarks == nil {
		s.remarks = make(map[string]bool)
	}
	s.remarks[text] = true
	s.config.Logger.Warn(text, args...)
}
