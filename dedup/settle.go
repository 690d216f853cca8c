package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// minRetry keeps a handler that fails at once from being called in a tight loop.
const minRetry = 5 * time.Millisecond

// Settle is [Deduplicator.Do] for a loop that cannot ask for redelivery. It calls Do until
// the message is settled, and waits for Result.RetryAfter between two calls, at least 5 ms.
//
// It returns an error only if the message is not settled: a policy halted (the error matches
// [ErrHalted]), ctx ended (it matches the context's cause), or the Deduplicator is shut
// down ([ErrClosed]). After an error, neither acknowledge the message nor go on to the next.
//
// Inside a handler it returns [ErrOwnKey] at once for the key of that handler, and an error
// that matches [ErrBusy] for any other key that is Busy: two handlers that waited for the
// key of each other would wait for ever.
func (d *Deduplicator) Settle(ctx context.Context, m *Message, h Handler) (Result, error) {
	nested := d.calls.nested(ctx)
	for {
		r := d.Do(ctx, m, h)
		switch {
		case r.Settled():
			return r, nil
		case r.Halt:
			return r, fmt.Errorf("dedup: message at %v: %w: %w", m.Position, ErrHalted, r.Err)
		case r.Outcome == Busy && (nested || errors.Is(r.Err, ErrOwnKey)):
			return r, fmt.Errorf("dedup: message at %v is not settled: %w", m.Position, r.Err)
		case d.calls.isClosed():
			return r, fmt.Errorf("dedup: message at %v is not settled: %w", m.Position, ErrClosed)
		}
		if err := sleep(ctx, max(r.RetryAfter, minRetry)); err != nil {
			return r, fmt.Errorf("dedup: message at %v is not settled (%v): %w", m.Position, r.Outcome, err)
		}
	}
}

// Wrap returns a function for a loop of your own. It calls [Deduplicator.Settle] with h.
// Acknowledge the message if the function returns nil. If it returns an error, neither
// acknowledge the message nor go on to the next.
func (d *Deduplicator) Wrap(h Handler) func(ctx context.Context, m *Message) error {
	return func(ctx context.Context, m *Message) error {
		_, err := d.Settle(ctx, m, h)
		return err
	}
}
