package dedup

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// notes writes what an operator should know, at most one line a second of each kind:
// a backlog of ten thousand conflicts is one fact, not ten thousand lines.
type notes struct {
	logger *slog.Logger

	mu       sync.Mutex
	kinds    map[string]*kind // by the text of the line
	panicked *PanicError      // the last one told
	since    time.Time        // of the last line of fresh
}

// kind is one kind of line.
type kind struct {
	told    time.Time
	pending int // not told since
}

// due adds n to what there is to tell of a kind. It returns all of that, or 0 if the
// last line is less than a second old.
func (n *notes) due(text string, count int) (all int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := n.kinds[text]
	if k == nil {
		k = new(kind)
		n.kinds[text] = k
	}
	k.pending += count
	now := time.Now()
	if !k.told.IsZero() && now.Sub(k.told) < time.Second {
		return 0
	}
	all = k.pending
	k.told, k.pending = now, 0
	return all
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
	case Duplicate:
		return "duplicate"
	case Busy:
	}
	return ""
}

func (n *notes) decided(x *delivery) {
	r := x.res
	level, text := slog.LevelWarn, x.text()
	panicked := panicOf(r.Err)
	switch {
	case panicked != nil:
		text = "panic"
		if r.Outcome == Failed {
			text = "the handler panicked"
		}
	case x.park != nil && !r.settled && !r.Halt && r.Outcome != Uncertain:
		return // the dead letter is not confirmed: its sender tells
	case r.Outcome == Duplicate:
		level = slog.LevelDebug
	}
	if r.Halt {
		level, text = slog.LevelError, text+"; it halts: mend the cause, then start again"
	}
	if text == "" || !n.logger.Enabled(context.Background(), level) {
		return
	}
	suppressed := 0
	if !r.Halt && level != slog.LevelDebug && !n.firstOf(panicked) {
		if suppressed = n.due(text, 1) - 1; suppressed < 0 {
			return
		}
	}
	attrs := []any{"outcome", r.Outcome.String(), "position", x.m.Position.String(), "settled", r.settled}
	if r.ID != (ID{}) {
		attrs = append(attrs, "id", r.ID.String())
	}
	if r.Outcome == Duplicate {
		attrs = append(attrs, "first", r.First.String(), "cause", duplicateCause(x.m.Position, r.First))
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
	if panicked != nil {
		attrs = append(attrs, "stack", string(panicked.Stack))
	}
	if suppressed > 0 {
		attrs = append(attrs, "suppressed", suppressed)
	}
	n.logger.Log(context.Background(), level, text, attrs...)
}

func panicOf(err error) (p *PanicError) {
	if err != nil {
		_ = errors.As(err, &p)
	}
	return p
}

// firstOf reports whether p is a panic that was not told yet. The messages of a batch share one.
func (n *notes) firstOf(p *PanicError) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p == nil || p == n.panicked {
		return false
	}
	n.panicked = p
	return true
}

// duplicateCause says where a duplicate comes from, as dedup_duplicates_total does.
func duplicateCause(at, first Position) string {
	switch {
	case at == first:
		return "redelivery"
	case at.Source == first.Source:
		return "republish"
	}
	return "other_source"
}

// fresh tells, once for each since, that messages published before until are flagged
// Stale. While since moves, because the TTL was lengthened, it tells once a minute.
func (n *notes) fresh(since, until time.Time) {
	const text = "messages published before this time are flagged Stale: the store knows nothing from before its memory began; " +
		"if nothing else has processed them, create the store with an earlier VouchFrom"
	n.mu.Lock()
	told := !n.since.IsZero() && since.Sub(n.since) < time.Minute
	if !told {
		n.since = since
	}
	n.mu.Unlock()
	if !told {
		n.logger.Warn(text, "until", until, "since", since)
	}
}

func (n *notes) hung(id ID, at Position, stack func() string) {
	const text = "the handler has outlived HandlerTimeout and its lease: others may process its message now, flagged Ambiguous; " +
		"it keeps its slot until it returns"
	if all := n.due(text, 1); all > 0 {
		n.logger.Error(text, "position", at.String(), "id", id.String(), "suppressed", all-1, "stack", stack())
	}
}

// storeRefused tells that the store answers some operations and not others.
func (n *notes) storeRefused(ops int, err error) {
	const text = "the store answers only some operations; what it refuses waits"
	if all := n.due(text, ops); all > 0 {
		n.logger.Warn(text, "refused", all, "err", err)
	}
}

// storeDue reports whether a change of the store may be told: of one that answers
// some operations and refuses others, once a second is enough.
func (n *notes) storeDue() bool { return n.due("the store", 1) > 0 }

func (n *notes) storeChanged(down bool, err error) {
	if down {
		n.logger.Error("the store does not answer", "err", err)
	} else {
		n.logger.Info("the store answers again")
	}
}
