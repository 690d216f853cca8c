package dedup

import (
	"runtime"
	"strings"
	"time"
)

// Hooks are functions that observe a [Deduplicator]. Many goroutines call them at once,
// in the path of the messages, so a slow hook slows the messages. A panic in a hook is
// logged, and changes nothing for the message. Each of them may be nil.
type Hooks struct {
	// Started is called once for each message given to Do, DoBatch, DoEach or DoRound,
	// before anything is done with it. One call of Decided follows.
	Started func(Event)
	// Decided is called once for each message given to Do, DoBatch, DoEach or DoRound, when
	// its Result is known. Settle and Wrap call Do for each try, so they cause one call of
	// Started and of Decided for each.
	Decided func(Event)
	// Applied is called after each call of the store's Apply, with the number of
	// operations in it and the time that it took. err is not nil only if none of the
	// operations was answered.
	Applied func(ops int, took time.Duration, err error)
	// LeaseLost is called for a message whose lease was lost before its result was
	// recorded. If its handler ran, it has returned by then.
	LeaseLost func(Event)
	// Hung is called with +1 when a handler has outlived HandlerTimeout and a lease
	// of its messages, which others may process now, and with -1 once it has returned.
	Hung func(change int)
}

// Event tells a hook about one delivery. A hook must not keep Message, or anything that
// Message points to, after it returns.
type Event struct {
	Scope     string        // the scope given to New
	Message   *Message      // the delivery; its Claim is set if the key was claimed
	Result    Result        // in Decided, the final one; in LeaseLost, as known so far; in Started, zero
	FirstSeen time.Time     // when the key was first seen, by the store's clock; zero if that is not known
	Took      time.Duration // how long the handler ran; of a batch handler or a round, the whole call; 0 if it did not run
	Started   time.Time     // when the Deduplicator received the message, by the local clock
}

// inHook reports whether its caller was called, in the end, by a hook.
func inHook() bool {
	pcs := make([]uintptr, 64)
	for skip := 0; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs)
		for frames, more := runtime.CallersFrames(pcs[:n]), n > 0; more; {
			var f runtime.Frame
			f, more = frames.Next()
			if strings.HasSuffix(f.Function, "/dedup.(*teller).callHook") {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}
