package dedup

import (
	"context"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// DoEach is [Deduplicator.Do] for the messages of a backlog. It is for authors of
// transports.
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
func (d *Deduplicator) DoEach(ctx context.Context, ms []*Message, h Handler) []Result {
	n := min(len(ms), max(1, min(eachMost, d.admission.Within(eachTurn))))
	switch n {
	case 0:
		return nil
	case 1:
		return []Result{d.Do(ctx, ms[0], h)}
	}
	results := make([]Result, n)
	d.doBatch(ctx, ms[:n], results, call{one: h})
	return results
}

// Vouch asks the store for its identity, and for how far back its memory reaches.
// It is for authors of transports. Its error matches [ErrStore].
//
// Vouch takes no context: it uses the Deduplicator's own, so a caller's
// cancellation is never mistaken for a failure of the store.
func (d *Deduplicator) Vouch() (driver.Vouch, error) { return d.asker.vouch() }
