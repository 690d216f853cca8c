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
	store time.Time // when a change of the store was last told
	// Operations that a store which answers others refused, since that was last told.
	refused     int
	refusedTold time.Time
	kinds       [len(outcomeNames)]struct {
		last       time.Time
		suppressed int
	}
}

// text says what an outcome means; "" if nobody need know.
func (x *delivery) text() string {
	switch r := x.res; r.Outcome {
	case Processed:
		switch {
		case x.m.Claim.Ambiguous:
			return "processed a message whose earlier run may have had its effect"
		case x.m.Claim.Stale:
			return "processed a message older than the store's memory"
		}
	case Failed:
		if x.ending.uncounted && !r.Halt {
			return "" // a dependency is down, or the run was cut short: its owner tells
		}
		return "the handler failed"
	case Parked:
		if x.claimed {
			return "parked the message"
		}
	case AlreadyParked:
		if p := x.m.Position; p != x.res.First || p == (Position{}) { // else it is a redelivery of the parked message
			return "the key is parked: nothing ran, and there is no new dead letter; release the key, and publish the message again"
		}
	case Conflict:
		return "another payload under a recorded key"
	case Unkeyed:
		return "message without a usable key"
	case Stale:
		return "refused a message older than the store's memory"
	case Ambiguous:
		return "refused a message whose earlier run may have had its effect"
	case Uncertain:
		return "the handler has finished and is not recorded"
	case Unavailable:
		if r.Halt {
			return "the store does not answer"
		}
	case Duplicate, Busy:
	}
	return ""
}

func (n *notes) decided(x *delivery) {
	r := x.res
	if x.park != nil && !r.settled && !r.Halt && r.Outcome != Uncertain {
		return // the dead letter is not confirmed: who sends it tells
	}
	level, text := slog.LevelWarn, x.text()
	if text == "" {
		return
	}
	if r.Halt {
		level, text = slog.LevelError, text+"; it halts: mend the cause, then start again"
	}
	if !n.logger.Enabled(context.Background(), level) {
		return
	}
	n.mu.Lock()
	k := &n.kinds[r.Outcome]
	now := time.Now()
	if !r.Halt && !k.last.IsZero() && now.Sub(k.last) < time.Second {
		k.suppressed++
		n.mu.Unlock()
		return
	}
	suppressed := k.suppressed
	k.last, k.suppressed = now, 0
	n.mu.Unlock()

	attrs := []any{"outcome", r.Outcome.String(), "position", x.m.Position.String(), "settled", r.settled}
	if r.ID != (ID{}) {
		attrs = append(attrs, "id", r.ID.String())
	}
	if x.claimed {
		attrs = append(attrs, "attempt", x.m.Claim.Attempt)
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

// storeDue reports whether a change of the store may be told: of one that answers
// some operations and refuses others, once a second is enough.
func (n *notes) storeDue() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return due(&n.store)
}

// due reports whether a second has passed since told, and sets it to now if so.
func due(told *time.Time) bool {
	now := time.Now()
	if !told.IsZero() && now.Sub(*told) < time.Second {
		return false
	}
	*told = now
	return true
}

// storeRefused tells, once a second, that the store answers some operations and not
// others.
func (n *notes) storeRefused(ops int, err error) {
	n.mu.Lock()
	n.refused += ops
	ops = n.refused
	tell := due(&n.refusedTold)
	if tell {
		n.refused = 0
	}
	n.mu.Unlock()
	if !tell {
		return
	}
	n.logger.Warn("the store answers only some operations; what it refuses waits", "refused", ops, "err", err)
}

func (n *notes) storeChanged(down bool, err error) {
	if down {
		n.logger.Error("the store does not answer", "err", err)
	} else {
		n.logger.Info("the store answers again")
	}
}
