package dedup

import (
	"context"
	"errors"
	"fmt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Release lets messages run again that were parked: call it once the cause is
// mended, and then publish them again. Without it their keys stay parked, and a
// message that is published under one of them is AlreadyParked.
//
// A released key starts over with no attempts. It stays Ambiguous if one of its
// runs may have had its effect, so that the handler of the replay is told. The
// payload must be the same as before: another one under the key is a Conflict.
//
// Policies count as before. With OnAmbiguous or OnStale as PolicyPark, a replay that is
// ambiguous or stale is parked again: set the policy to PolicyProcess for the replay.
//
// A key without a record, or one that was released before, is no error. One that is
// claimed is not released, with an error that matches ErrBusy: a run has it, or died
// with it. Nor is one that is completed: its replay is a Duplicate, and gets the
// recorded result. Release does all keys that it can, and returns the error of the
// first that it cannot. After an error that matches ErrStore nobody knows which
// keys are released, and Release can be called again.
func (d *Deduplicator) Release(ctx context.Context, keys ...Key) error {
	var this call
	if !d.calls.enter(ctx, &this) {
		return ErrClosed
	}
	defer d.calls.exit(&this)
	var first error
	failed := 0
	for at := 0; at < len(keys); at += driver.MaxBatch {
		batch := keys[at:min(at+driver.MaxBatch, len(keys))]
		ops := make([]driver.Op, len(batch)) // not shared: a caller that gives up leaves them to the sender
		for i, key := range batch {
			ops[i] = driver.Op{Kind: driver.OpUnpark, ID: d.identifier.ids.of(key), Floor: Token(d.asker.floor.Load()), TTL: d.o.TTL}
		}
		asked, err := d.asker.ask(ctx, ops)
		if err != nil {
			return fmt.Errorf("dedup: release %d keys: %w", len(keys)-at, err)
		}
		for i := range asked.Replies {
			if err := unparked(&asked.Replies[i]); err != nil {
				if failed++; first == nil {
					first = fmt.Errorf("dedup: release %v: %w", ops[i].ID, err)
				}
			}
		}
		asked.Done()
	}
	if failed > 1 {
		return fmt.Errorf("%w; and %d other keys", first, failed-1)
	}
	return first
}

// unparked says why a key was not released, from the store's answer.
func unparked(r *driver.Reply) error {
	switch {
	case r.Err != nil:
		return r.Err
	case r.Status == driver.StatusOK:
		return nil
	case r.Status == driver.StatusHeld:
		return fmt.Errorf("%w, at %v: what it did is not known yet", ErrBusy, r.Record.Held)
	case r.Status == driver.StatusDone:
		return errors.New("its message is completed and not parked")
	}
	return fmt.Errorf("%w: it answered an unpark with %v", ErrStore, r.Status)
}
