package natstransport

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/oncequeue/oncequeue/dedup"
)

const (
	// maxTries is how often a message is sent that the stream does not take at the
	// moment.
	maxTries   = 5
	tryBackoff = 50 * time.Millisecond
)

// Publish writes Value and Headers of the messages. It returns one error for each message, in
// their order:
//
//   - nil: the message is confirmed. Except for dead letters, that can be the confirmation of an
//     earlier message with the same Nats-Msg-Id.
//   - marked [dedup.Transient]: the message is not stored, and the message is not the reason: the
//     server does not answer, no stream stores the subject, or the stream is full.
//   - marked [dedup.MaybeDone]: the message may or may not be stored.
//   - marked [dedup.Permanent]: the message is not stored, and will never be stored as it is: it
//     is too large, its subject is not valid, or NATS cannot carry one of its headers.
//   - [ErrDuplicate]: see SinkConfig.DeadLetters.
//
// A NATS message has no place for Key and Published. Copy them to headers if they have to be
// kept. Headers whose names begin with "Nats-" are left out, because they are instructions to a
// server.
//
// The messages of one call are sent in their order, and Publish does not wait for one
// confirmation before it sends the next message. So the order can be lost. A message that the
// stream cannot store for a moment, because its leader moves, is sent again after later ones
// were stored. A message that is not confirmed may be stored by your next call, after others of
// this call. If you need the order in these cases too, publish one message in each call.
//
// Publish does not change the messages. It does not use them after it returns, except that the
// values of messages that are MaybeDone may still be sent.
func (s *Sink) Publish(ctx context.Context, ms []*dedup.Message) []error {
	errs := make([]error, len(ms))
	if !s.enter() {
		for i := range errs {
			errs[i] = errSinkClosed
		}
		return errs
	}
	defer s.calls.Done()
	outs := make([]nats.Msg, len(ms))
	todo := make([]int, 0, len(ms))
	for i, m := range ms {
		if errs[i] = s.fill(&outs[i], m); errs[i] == nil {
			todo = append(todo, i)
		}
	}
	flying := make([]*nats.Msg, 0, len(todo))
	met := make(map[int]bool) // those whose id another message had while that was being stored
	for try := 1; len(todo) > 0; try++ {
		flying = flying[:0]
		for _, i := range todo {
			flying = append(flying, &outs[i])
		}
		for n, err := range s.fly(ctx, flying) {
			i := todo[n]
			if met[i] {
				err = dedup.MaybeDone(err) // that other one may be this
			}
			if errors.Is(err, errInProcess) {
				met[i] = true
			}
			errs[i] = s.explain(&outs[i], err)
		}
		todo = slices.DeleteFunc(todo, func(i int) bool { return !again(errs[i]) })
		if try == maxTries || len(todo) > 0 && !pause(ctx.Done(), time.Duration(try)*tryBackoff) {
			break
		}
	}
	return errs
}

func (s *Sink) explain(m *nats.Msg, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("natstransport: publish to %s: %w", m.Subject, err)
}

// again says that a message was not stored, and may be in a moment: the stream stores
// one with its id just now, or has no leader.
func again(err error) bool {
	return errors.Is(err, errInProcess) || errors.Is(err, jetstream.ErrNoStreamResponse)
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
			return dedup.MaybeDone(fmt.Errorf("%w: %w", errInProcess, err)) // that other one may be this
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
