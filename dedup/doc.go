// Package dedup makes message consumers process each logical message once.
//
// Brokers deliver at least once. A Deduplicator takes an idempotency key from
// each message, claims it in a Store before the handler runs, and records the
// result after. The caller acknowledges the delivery only then, when
// Result.Settled says so. A duplicate gets the recorded result and no second run.
//
// # What it promises
//
//   - Never lost: a key is never marked as seen before its work is done. A
//     failed or crashed handler's message runs again.
//   - Never twice at once: a key has one holder, under a lease with a fencing
//     token.
//   - Never twice once recorded, as long as the record lives (Options.TTL).
//   - Never silent: what cannot be decided is flagged, counted, and handed to a
//     policy. See Outcome and the policies in Options.
//
// A message that cannot be processed is parked: its dead letter is written. Later
// deliveries under its key do not run; their outcome is AlreadyParked. Once the cause
// is mended, call Release, and then publish the message again.
//
// What no library can promise is that a plain side effect is not repeated when
// the process dies between the effect and its record. That run is repeated with
// Claim.Ambiguous set. To rule the repeat out, pass Claim.Token to a system that
// refuses older tokens, or Claim.ID to one that refuses the same id twice.
//
// # Keys
//
// A key is what its producer wrote in a header (HeaderKey), or is derived from the
// message: JSONKey, RecordKey, PayloadHash, PositionKey. PerTopic, AllOf and FirstOf
// combine them. Derived keys begin with a zero byte and a kind, so no header can take
// the key of a message that has none. The bytes of keys never change from one version
// to the next, because stores hold their IDs. If you change the key function of a
// scope, messages have new keys: those that are delivered again run a second time.
//
// # How to use it
//
// New makes a Deduplicator from a store, a scope and a KeyFunc. The packages
// kafkatransport and natstransport run one under a consumer; in a loop of your
// own, Wrap your handler and acknowledge when it returns nil, or call Do where
// the broker can redeliver a single message.
package dedup
