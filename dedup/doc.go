// Package dedup makes message consumers process each logical message once.
//
// Brokers deliver at least once, so a handler can see one message several times.
// A [Deduplicator] takes a key from each message and claims it in a [driver.Store]
// before the handler runs. It records the result when the handler returns. Only
// then does [Result.Settled] say that the delivery may be acknowledged. A
// duplicate gets the recorded result, and the handler does not run again.
//
// # A program
//
// This program runs as it stands. The second delivery is a duplicate, so it
// prints "charged" once and "acknowledge" twice.
//
//	package main
//
//	import (
//		"context"
//		"fmt"
//		"log"
//
//		"github.com/oncequeue/oncequeue/dedup"
//		memstore "github.com/oncequeue/oncequeue/store/mem"
//	)
//
//	func main() {
//		ctx := context.Background()
//		d, err := dedup.New(memstore.New(nil), "billing", dedup.HeaderKey(), nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		handle := d.Wrap(func(ctx context.Context, m *dedup.Message) ([]byte, error) {
//			fmt.Println("charged", string(m.Value))
//			return nil, nil
//		})
//		for range 2 { // a loop over a broker's deliveries
//			m := &dedup.Message{Value: []byte("order-1")}
//			m.Headers.SetKey("order-1")
//			if err := handle(ctx, m); err != nil {
//				log.Fatal(err) // not settled: do not acknowledge, and do not go on
//			}
//			fmt.Println("acknowledge")
//		}
//		if err := d.Shutdown(ctx); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// The packages store/mem, store/bolt and store/redis are stores. store/mem
// forgets everything when the process ends. The packages transport/kafka and
// transport/nats contain the loop for Kafka and for NATS JetStream.
//
// # Terms
//
//   - message: one logical unit of work. A delivery is one arrival of it.
//   - key: the bytes that name a message. Equal keys in one scope mean the same
//     message. A [KeyFunc] derives the key.
//   - scope: a name that separates the keys of one use from all others in the
//     same store. It is the second argument of [New].
//   - record: the state, result and times that the store keeps for a key.
//   - claim: the right to run the handler for a key, taken before the handler
//     runs. At most one run holds the claim of a key at a time: its holder.
//   - lease: how long a claim lasts unless it is renewed. A claim whose lease has
//     run out has lapsed, and another run may take it over.
//   - token: a number that grows with every claim of a key. The store refuses to
//     record a result under an older token.
//   - settled: the message needs no more work. It is completed, a duplicate,
//     parked or skipped. Only a settled delivery may be acknowledged.
//   - busy: another run holds the key. The delivery has to come again.
//   - ambiguous: an earlier run may already have had its effect, because it died,
//     was cut short, or could not record its result.
//   - stale: the message is older than the store's memory reaches, so a record of
//     it may have existed and been forgotten.
//   - conflict: the key is already used by a message with another payload.
//   - unkeyed: no usable key can be derived from the message.
//   - park: write the message to a dead-letter destination. The message is
//     settled when that write is confirmed.
//   - halt: stop without settling the message, because an operator must look.
//   - vouch: a store states from when on its memory is complete. See [driver.Vouch].
//
// # The guarantee
//
//   - No message is lost: a key counts as completed only after its handler
//     returned without an error and the result was recorded. If the handler fails
//     or the process dies, the message runs again.
//   - No two runs hold one key at once. A run that was paused past its lease can
//     still be busy with its effect when another run takes the key over. That
//     second run is flagged ambiguous, and the result of the first is refused.
//   - A completed key is not run again for as long as its record lives: at least
//     Options.TTL, by the store's clock.
//   - A message that cannot simply be processed is flagged, counted, and handed to
//     a [Policy].
//
// The guarantee cannot cover a crash between the effect of a handler and the
// record of it. The message runs again with Claim.Ambiguous set. If the system
// that takes the effect refuses a Claim.ID that it already has, then even that
// repeat has no second effect. A system that refuses an older Claim.Token stops a
// paused run, and not this repeat, which has a newer token.
//
// The guarantee is as good as the store's memory: each store's package comment
// says what its answer survives.
//
// # Keys
//
// A key is the bytes that a producer wrote in a header ([HeaderKey]), or is derived from
// the message by [JSONKey], [RecordKey], [PayloadHash] or [PositionKey]. [PerTopic],
// [AllOf] and [FirstOf] combine them. Derived keys begin with a zero byte and a kind, so
// no header can take the key of a message that has none. The bytes of keys never change
// from one version to the next, because stores hold their IDs. If you change the key
// function of a scope, messages have new keys: those that are delivered again run a
// second time.
//
// # Parked messages
//
// The key of a parked message stays parked for its TTL. Later deliveries under it do not
// run, and write no dead letter; their outcome is [AlreadyParked]. Once the cause is
// mended, call [Deduplicator.Release], and then publish the message again.
//
// # Defaults
//
// New(store, scope, key, nil) gives these. All of them are fields of [Options].
//
//   - A result is remembered for 24 hours (TTL).
//   - A message without a usable key halts (OnUnkeyed), and so does a key with
//     another payload (OnConflict). With a DeadLetter, both are parked.
//   - A stale or ambiguous message is processed, with the flag set in its [Claim]
//     (OnStale, OnAmbiguous).
//   - A failed message runs again after a backoff of up to 30 seconds, without
//     end. With a DeadLetter, it is parked after 10 runs (MaxAttempts).
//   - A claim lapses at most 30 seconds after its holder died (Lease). A handler may
//     run for 10 minutes (HandlerTimeout).
//   - While the store does not answer, no handler starts and nothing is settled
//     (OnStoreError).
//
// # Names for users
//
//   - The core: [New], [Deduplicator], [Options], [Message], [Claim].
//   - Handlers: [Handler], [BatchHandler], [Answer].
//   - One message at a time: [Deduplicator.Wrap], [Deduplicator.Settle],
//     [Deduplicator.Do]. A batch: [Deduplicator.DoBatch]. The end:
//     [Deduplicator.Shutdown].
//   - Answers: [Result], [Outcome], [Position].
//   - Key functions: [HeaderKey], [JSONKey], [RecordKey], [PayloadHash], [PositionKey].
//     They combine by [FirstOf], [AllOf] and [PerTopic]. Producers use [Headers.SetKey].
//   - Error marks for handlers: [Permanent], [RetryAfter], [Transient],
//     [MaybeDone].
//   - Policies: [PolicyProcess], [PolicyPark], [PolicySkip], [PolicyHalt],
//     [StorePause], [StoreHalt].
//   - More settings: [DeadLetters], [Backoff], [PayloadFingerprint],
//     [NoFingerprint].
//   - Observation: [Hooks], [Event]. The package dedup/metrics uses them for
//     Prometheus.
//   - Errors to match with errors.Is: [ErrHalted], [ErrClosed], [ErrNoKey],
//     [ErrConflict] and the others beside them. [PanicError] is for errors.As.
//   - Tools for operators: [Deduplicator.Release], [ParseKey], [NewID]. What a store
//     remembers: [driver.Inspector], with [driver.StoredRecord], [driver.Stats] and
//     [driver.ParseID].
//
// # Names for authors of stores
//
// They are in the package dedup/driver. The types [ID], [Token], [Position] and
// [Fingerprint] are here too, because users meet them.
//
// # Names for authors of transports
//
//   - Fields of [Message] that a transport fills in: all but Claim. Since needs
//     care: see there.
//   - [Deduplicator.Do] for a broker that can redeliver a single message,
//     and [Deduplicator.DoBatch].
//   - [Transport], which [Deduplicator.Transport] returns, has the rest, and the contract.
//   - A batch in two phases: [Transport.DoRound], [RoundHandler], [Round], [Standing],
//     [StandingKind].
package dedup
