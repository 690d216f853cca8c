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
// What no library can promise is that a plain side effect is not repeated when
// the process dies between the effect and its record. That run is repeated with
// Claim.Ambiguous set. To rule the repeat out, pass Claim.Token to a system that
// refuses older tokens, or Claim.ID to one that refuses the same id twice.
//
// # How to use it
//
// New makes a Deduplicator from a store, a scope and a KeyFunc. The packages
// kafkatransport and natstransport run one under a consumer; in a loop of your
// own, Wrap your handler and acknowledge when it returns nil, or call Do where
// the broker can redeliver a single message.
package dedup
