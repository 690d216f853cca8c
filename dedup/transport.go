package dedup

import (
	"context"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Transport is the face of a [Deduplicator] for authors of transports. [Deduplicator.Transport]
// returns it.
//
// A transport receives deliveries from a broker, has the Deduplicator process them, and
// acknowledges those that are settled. It keeps these rules:
//
//   - Fill in all fields of [Message] but Claim. Position and Published are the same in
//     each delivery of a message. A Message belongs to one call at a time, and its byte
//     slices stay as they are until the call returns.
//   - Acknowledge a delivery only if its [Result] is settled. If Halt is set, stop: start
//     nothing behind the message, and tell an operator. Otherwise deliver the message
//     again, no sooner than after Result.RetryAfter.
//   - Calls may be made by many goroutines at once. A call returns one Result for each
//     message, in their order. Where a method takes only a prefix of the messages, the
//     caller calls again with the rest.
//   - A handler of DoRound acknowledges in its transaction, before the Results are known.
//     DoRound says for which messages it may.
//   - A context that is cancelled ends handlers early. Their runs are not counted, and
//     their messages come again flagged Ambiguous, unless [Round.GiveBack] says otherwise. Results of finished handlers are
//     recorded all the same.
//   - Shut the Deduplicator down only when no call is made any more. Calls after that are
//     refused with [ErrClosed].
//
// A transport uses [Deduplicator.Do] if its broker can redeliver a single message, and
// [Deduplicator.DoBatch] for a batch handler. DoEach is for a backlog of single messages,
// and DoRound for a transport that settles many messages in one transaction. Vouch tells
// which store is behind the Deduplicator, so that a transport can set Message.Since.
type Transport struct{ d *Deduplicator }

// Transport returns the methods for authors of transports.
func (d *Deduplicator) Transport() Transport { return Transport{d} }

// DoEach is [Deduplicator.Do] for the messages of a backlog.
//
// DoEach processes a prefix of ms: as many messages as h should finish in one millisecond,
// judged by its average so far, but at least 1 and at most 8. It returns one Result for
// each message of that prefix. Call it again with the rest.
//
// DoEach claims the keys of the prefix in one store operation, calls h for one message
// after the other, and records their results in one store operation. Each call of h has
// its own context and HandlerTimeout. A panic fails only its own message.
//
// If the calls together take longer than 10 ms, DoEach stops waiting for the slow one: it
// records the results so far, sends their dead letters, and releases the claims of the
// messages whose turn has not come. Those messages are [Unavailable], and the attempt does
// not count.
//
// As in DoBatch, messages with the same key and payload get the Result of the first one,
// and a message whose key is being processed elsewhere in this process comes last.
// After a Result with Halt, no further message of the call is started. After a failed
// message, the next one runs all the same: do not put messages in one call if a later one
// must not overtake an earlier one.
func (t Transport) DoEach(ctx context.Context, ms []*Message, h Handler) []Result {
	d := t.d
	n := min(len(ms), max(1, min(eachMost, d.admission.Within(eachTurn))))
	switch n {
	case 0:
		return nil
	case 1:
		return []Result{d.Do(ctx, ms[0], h)}
	}
	results := make([]Result, n)
	d.doBatch(ctx, ms[:n], results, &call{one: h}, (*Deduplicator).processAll)
	return results
}

// Vouch asks the store for its identity, and for how far back its memory reaches.
// Its error matches [ErrStore].
//
// Vouch takes no context: it uses the Deduplicator's own, so a caller's
// cancellation is never mistaken for a failure of the store.
func (t Transport) Vouch() (driver.Vouch, error) { return t.d.asker.vouch() }
