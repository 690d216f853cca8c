package dedup

import "time"

// Hooks observe a Deduplicator. They are called in line, by many goroutines at
// once: a slow hook slows the messages. One that panics is logged. A nil hook
// costs nothing.
type Hooks struct {
	// Started is called once for each message given to Do, DoBatch or DoEach, when the
	// Deduplicator has received it. Each is followed by one Decided.
	Started func(Event)
	// Decided is called once for each message given to Do, DoBatch or DoEach, when its
	// Result is known. Settle calls Do for each try.
	Decided func(Event)
	// Applied is called after each Apply of the store. err is not nil if none of
	// the operations was answered.
	Applied func(ops int, took time.Duration, err error)
	// LeaseLost is called for a message whose claim was lost before its handler
	// returned, once that has.
	LeaseLost func(Event)
	// Hung is called with +1 when a handler has outlived HandlerTimeout and a lease
	// of its messages, which others may process now, and with -1 once it has returned.
	Hung func(change int)
}

// Event tells a hook about one delivery. Message, and what it points to, may
// not be kept after the hook returns.
type Event struct {
	Scope     string
	Message   *Message
	Result    Result        // Decided only
	FirstSeen time.Time     // when the key was first seen, by the store's clock; zero if there is no record
	Took      time.Duration // how long the handler ran, of a batch handler the whole batch; zero if it did not
	Started   time.Time     // when the Deduplicator received the message
}
