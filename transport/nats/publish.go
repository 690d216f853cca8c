package natstransport

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
)

const (
	// inProcessTries is how often a message is sent whose id the stream is just
	// storing for another.
	inProcessTries   = 5
	inProcessBackoff = 50 * time.Millisecond
)

// Publish writes the messages: their values and headers. It returns one error for
// each, in their order:
//
//   - nil: the message is confirmed, now or, except for dead letters, earlier:
//     the stream knows its Nats-Msg-Id.
//   - dedup.Transient: it is not stored, for no fault of its own: the server does
//     not answer, no stream stores the subject, the stream is full.
//   - dedup.MaybeDone: it may or may not be stored.
//   - dedup.Permanent: it is not stored, and never will be as it is: too large, a
//     subject that is none, a header that NATS cannot carry.
//   - ErrDuplicate: see SinkConfig.DeadLetters.
//
// Headers whose names begin with Nats- are instructions to the server that stored
// the message; they are left out. A NATS message has no place for Key and
// Published: what is to be kept of them has to be in a header. The messages of one
// call are stored in their order if all of them are.
//
// The messages are not changed, and not used after the return, except those that
// are MaybeDone, whose values may still be sent.
func (s *Sink) Publish(ctx context.Context, ms []*dedup.Message) []error {
	errs := make([]error, len(ms))
	if !s.enter() {
		for i := range errs {
			errs[i] = errSinkClosed
		}
		return errs
	}
	defer s.calls.Done()
	waiting := make([]sent, 0, len(ms)) // oldest first
	settle := func() {
		w := waiting[0]
		waiting = waiting[1:]
		errs[w.index] = s.explain(w.message, s.confirmed(ctx, w))
	}
	for i, m := range ms {
		out, err := s.message(m)
		if err != nil {
			errs[i] = err
			continue
		}
		for len(waiting) > 0 && !s.tryEnterWindow() {
			settle()
		}
		if len(waiting) == 0 {
			if err := s.enterWindow(ctx); err != nil {
				errs[i] = s.explain(out, err)
				continue
			}
		}
		future, err := s.send(ctx, out)
		if err != nil {
			<-s.window
			errs[i] = s.explain(out, err)
			continue
		}
		waiting = append(waiting, sent{i, out, future})
	}
	for len(waiting) > 0 {
		settle()
	}
	return errs
}

// sent is a message that waits for its confirmation, and holds a place in the window.
type sent struct {
	index   int
	message *nats.Msg
	future  jetstream.PubAckFuture
}

func (s *Sink) explain(m *nats.Msg, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("natstransport: publish to %s: %w", m.Subject, err)
}

func (s *Sink) tryEnterWindow() bool {
	select {
	case s.window <- struct{}{}:
		return true
	default:
		return false
	}
}

// enterWindow waits for a place. The others that hold one wait for nothing but
// the server.
func (s *Sink) enterWindow(ctx context.Context) error {
	select {
	case s.window <- struct{}{}:
		return nil
	case <-ctx.Done():
		return dedup.Transient(context.Cause(ctx))
	}
}

// send hands the message to the connection. An error means that it was not sent.
func (s *Sink) send(ctx context.Context, m *nats.Msg) (jetstream.PubAckFuture, error) {
	if ctx.Err() != nil {
		return nil, dedup.Transient(context.Cause(ctx))
	}
	if !s.conn.IsConnected() { // else it would wait in a buffer, and be sent who knows when
		return nil, dedup.Transient(fmt.Errorf("the server does not answer: %w", errDisconnected))
	}
	future, err := s.js.PublishMsgAsync(m)
	switch {
	case err == nil:
		return future, nil
	case errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrBadSubject), errors.Is(err, nats.ErrBadHeaderMsg):
		return nil, dedup.Permanent(err)
	}
	return nil, dedup.Transient(err)
}

var errDisconnected = errors.New("the connection is being made again")

// confirmed waits for the confirmation, and gives back the place in the window.
func (s *Sink) confirmed(ctx context.Context, w sent) error {
	defer func() { <-s.window }()
	for try := 1; ; try++ {
		err := s.await(ctx, w.future)
		if !errors.Is(err, errInProcess) {
			return err
		}
		if try == inProcessTries || !pause(ctx.Done(), time.Duration(try)*inProcessBackoff) {
			return dedup.MaybeDone(err) // that other one may be this
		}
		if w.future, err = s.send(ctx, w.message); err != nil {
			return dedup.MaybeDone(err)
		}
	}
}

// await turns the server's answer into what is known of the message.
func (s *Sink) await(ctx context.Context, future jetstream.PubAckFuture) error {
	select {
	case ack := <-future.Ok():
		if ack.Duplicate && s.config.DeadLetters {
			return fmt.Errorf("%w: stream %s has its Nats-Msg-Id at %d", ErrDuplicate, ack.Stream, ack.Sequence)
		}
		return nil
	case err := <-future.Err():
		return classify(err)
	case <-ctx.Done():
		return dedup.MaybeDone(fmt.Errorf("not confirmed: %w", context.Cause(ctx)))
	}
}

// errInProcess: the stream is storing a message of the same Nats-Msg-Id.
var errInProcess = errors.New("a message with its Nats-Msg-Id is being stored")

// Error codes of the server's API that the client library has no names for.
const (
	codeClusterNotAvailable   jetstream.ErrorCode = 10008
	codeClusterNotLeader      jetstream.ErrorCode = 10009
	codeAccountLimit          jetstream.ErrorCode = 10002
	codeInsufficientResources jetstream.ErrorCode = 10023
	codeMemoryExceeded        jetstream.ErrorCode = 10028
	codeStorageExceeded       jetstream.ErrorCode = 10047
	codeStreamNotMatch        jetstream.ErrorCode = 10060
	codeStoreFailed           jetstream.ErrorCode = 10077 // a limit of the stream, with discard new
	codeHeaderTooLarge        jetstream.ErrorCode = 10097
	codeSealed                jetstream.ErrorCode = 10109
	codeStreamOffline         jetstream.ErrorCode = 10118
	codeDuplicateInProcess    jetstream.ErrorCode = 10158
)

// classify says what an error after sending means for the message.
func classify(err error) error {
	var answer *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		return dedup.Transient(fmt.Errorf("no stream stores the subject, or the one that does has no leader: %w", err))
	case errors.As(err, &answer):
		switch answer.ErrorCode {
		case jetstream.JSErrCodeStreamMessageExceedsMaximum, codeHeaderTooLarge:
			return dedup.Permanent(err)
		case codeDuplicateInProcess:
			return fmt.Errorf("%w: %w", errInProcess, err)
		case codeClusterNotAvailable, codeClusterNotLeader, codeAccountLimit, codeInsufficientResources,
			codeMemoryExceeded, codeStorageExceeded, codeStreamNotMatch, codeStoreFailed, codeSealed, codeStreamOffline,
			jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return dedup.Transient(err)
		}
	}
	// A timeout, a connection lost after sending, an answer that is none, and what
	// is not known to come before the store.
	return dedup.MaybeDone(fmt.Errorf("not confirmed: %w", err))
}
