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
// Published: what is to be kept of them has to be in a header.
//
// The messages of one call are sent in their order, without waiting for each other's
// confirmation. One that the stream does not take at the moment, since its leader moves,
// is sent again after those that it took; one that is not confirmed may be stored by the
// next call, after others of this one. Who needs their order in spite of that publishes
// them one by one.
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
