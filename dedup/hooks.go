package dedup

import "time"

// Hooks observe a Deduplicator. They are called in line, by many goroutines at
// once: a slow hook slows the messages. A nil hook costs nothing.
type Hooks struct {
	// Decided is called once for each message given to Do or DoBatch, when its
	// Result is known. Settle calls Do for each try.
	Decided func(Event)
	// Applied is called after each Apply of the store.
	Applied func(ops int, took time.Duration, err error)
	// LeaseLost is called when a running handler loses its claim.
	LeaseLost func(Event)
}

// Event tells a hook about one delivery. Message, and what it points to, may
// not be kept after the hook returns.
type Event struct {
	Scope     string
	Message   *Message
	Result    Result        // Decided only
	FirstSeen time.Time     // when the key was first seen, by the store's clock; zero if there is no record
	Took      time.Duration // how long the handler ran; zero if it did not
	Started   time.Time     // when the Deduplicator received the message
}
