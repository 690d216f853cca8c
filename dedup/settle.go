package dedup

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// minRetry keeps a handler that fails at once from being called in a tight loop.
const minRetry = 5 * time.Millisecond

// Settle is Do for a loop that cannot ask for redelivery: it tries again, in
// place, until the message is settled. It returns an error only when it is
// not: halted (ErrHalted), ctx ended, or shut down (ErrClosed). Then neither
// acknowledge the message nor go on to the next. Between two tries it waits at least
// 5 ms, whatever Options.Backoff or RetryAfter say.
//
// Inside a handler it returns ErrOwnKey at once for the key of that handler.
func (d *Deduplicator) Settle(ctx context.Context, m *Message, h Handler) (Result, error) {
	for {
		r := d.Do(ctx, m, h)
		switch {
		case r.Settled():
			return r, nil
		case r.Halt:
			return r, fmt.Errorf("dedup: message at %v: %w: %w", m.Position, ErrHalted, r.Err)
		case errors.Is(r.Err, ErrOwnKey):
			return r, fmt.Errorf("dedup: message at %v is not settled: %w", m.Position, r.Err)
		case d.isClosed():
			return r, fmt.Errorf("dedup: message at %v is not settled: %w", m.Position, ErrClosed)
		}
		if err := sleep(ctx, max(r.RetryAfter, minRetry)); err != nil {
			return r, fmt.Errorf("dedup: message at %v is not settled (%v): %w", m.Position, r.Outcome, err)
		}
	}
}

// Wrap turns h into a function for a loop of one's own: nil means acknowledge,
// an error means neither acknowledge nor go on. See Settle.
func (d *Deduplicator) Wrap(h Handler) func(ctx context.Context, m *Message) error {
	return func(ctx context.Context, m *Message) error {
		_, err := d.Settle(ctx, m, h)
		return err
	}
}

func (d *Deduplicator) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}
