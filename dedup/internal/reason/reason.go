// Package reason has the errors that say why a wait or a claim ended. Package dedup has
// them under its own names.
package reason

import "errors"

var (
	// ErrClosed means that the Deduplicator is shut down.
	ErrClosed = errors.New("the deduplicator is shut down")
	// ErrLeaseLost means that a claim ended before its result was recorded.
	ErrLeaseLost = errors.New("the lease was lost")
)
