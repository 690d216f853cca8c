package dedup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// notes writes what an operator should know, at most one line a second for
// each outcome: a backlog of ten thousand conflicts is one fact, not ten
// thousand lines.
type notes struct {
	logger *slog.Logger

	mu    sync.Mutex
	kinds [len(outcomeNames)]struct {
		last       time.Time
		suppressed int
	}
}

func (n *notes) decided(x *delivery) {
	r := &x.res
	level, text := slog.LevelWarn, ""
	switch r.Outcome {
	case Processed:
		if !x.m.Claim.Ambiguous && !x.m.Claim.Stale {
			return
		}
		text = "processed a message that may have been processed before"
	case Duplicate, Busy, Unavailable: // everyday, or told by storeChanged
		return
	case Failed:
		text = "the handler failed"
	case Parked:
		text = "parked the message"
	case Conflict:
		text = "another payload under a recorded key"
	case Unkeyed:
		text = "message without a usable key"
	case Stale:
		text = "refused a message older than the store's memory"
	case Ambiguous:
		text = "refused a message whose earlier run may have had its effect"
	case Uncertain:
		text = "the handler succeeded and its record was refused"
	}
	if r.Halt {
		level, text = slog.LevelError, text+"; halted, an operator must look"
	}
	if !n.logger.Enabled(context.Background(), level) {
		return
	}
	n.mu.Lock()
	k := &n.kinds[r.Outcome]
	now := time.Now()
	if !k.last.IsZero() && now.Sub(k.last) < time.Second {
		k.suppressed++
		n.mu.Unlock()
		return
	}
	suppressed := k.suppressed
	k.last, k.suppressed = now, 0
	n.mu.Unlock()

	attrs := []any{
		"outcome", r.Outcome.String(), "id", r.ID.String(), "position", x.m.Position.String(),
		"settled", r.settled, "attempt", x.m.Claim.Attempt,
	}
	if x.m.Claim.Ambiguous {
		attrs = append(attrs, "ambiguous", true)
	}
	if x.m.Claim.Stale {
		attrs = append(attrs, "stale", true)
	}
	if r.Err != nil {
		attrs = append(attrs, "err", r.Err)
	}
	var panicked *PanicError
	if errors.As(r.Err, &panicked) {
		attrs = append(attrs, "stack", string(panicked.Stack))
	}
	if suppressed > 0 {
		attrs = append(attrs, "suppressed", suppressed)
	}
	n.logger.Log(context.Background(), level, text, attrs...)
}

func (n *notes) storeChanged(down bool, err error) {
	if down {
		n.logger.Error("the store does not answer", "err", err)
	} else {
		n.logger.Info("the store answers again")
	}
}
