// Package reason has the errors that say why a wait or a claim ended. Package dedup has
// them under its own names.
package reason

import "errors"

var (
	// Closed means that the Deduplicator is shut down.
	Closed = errors.New("the deduplicator is shut down")
	// LeaseLost means that a claim ended before its result was recorded.
	LeaseLost = errors.New("the lease was lost")
)
