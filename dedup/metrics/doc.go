// Package metrics shows a Deduplicator and its store to Prometheus.
//
//	m, err := metrics.New(registry, "billing", &metrics.Options{TTL: ttl})
//	if err != nil { ... }
//	d, err := dedup.New(store, "billing", key, &dedup.Options{TTL: ttl, Hooks: m.Hooks(dedup.Hooks{})})
//	if err != nil { ... }
//	err = metrics.RegisterStore(registry, "billing", store)
//
// Every metric has the label scope, and none has a key, a payload, a topic or a
// subject: the number of series does not grow with the traffic. Several scopes
// share one registry. Histograms are native and classic at once: what is scraped
// is the scraper's choice.
//
//	metric                             type       what
//	dedup_messages_total               counter    deliveries, by outcome: processed, duplicate, busy, failed, parked,
//	                                              conflict, unkeyed, stale, ambiguous, uncertain, unavailable
//	dedup_duplicates_total             counter    deliveries answered from a record, by cause: redelivery (the broker
//	                                              delivered the same message again), republish (another message in the
//	                                              same topic or stream has the key), other_source (one elsewhere has it)
//	dedup_ambiguous_total              counter    messages settled, or halted at, whose earlier run may have had its
//	                                              effect: a plain effect may have happened twice
//	dedup_stale_total                  counter    messages settled, or halted at, that are older than the store's memory
//	dedup_lease_lost_total             counter    handlers that lost their claim while they ran
//	dedup_handlers_hung                gauge      handlers that have outlived HandlerTimeout and their lease, and have not
//	                                              returned. Each keeps its slot of Options.Concurrency
//	dedup_handler_seconds              histogram  how long the handler ran; of a batch handler, the batch, once for each message
//	dedup_in_flight                    gauge      deliveries inside Do, DoBatch or Settle
//	dedup_duplicate_age_seconds        histogram  how long after the first sight of its key a duplicate came. What comes
//	                                              near the TTL says that the TTL is too short
//	dedup_window_headroom_seconds      gauge      the TTL minus the age of the oldest unfinished message. At 0 the store
//	                                              begins to forget keys that a backlog still holds
//	dedup_store_seconds                histogram  how long each Apply of the store took
//	dedup_store_batch_ops              histogram  operations in each Apply
//	dedup_store_errors_total           counter    calls of Apply that answered no operation
//	dedup_store_up                     gauge      RegisterStore: 1 if the store told its figures, else 0 and none of those below
//	dedup_store_records                gauge      RegisterStore: records remembered, expired ones not yet dropped included
//	dedup_store_bytes                  gauge      RegisterStore: on disk, or in the server's memory
//	dedup_store_limit_bytes            gauge      RegisterStore: the size at which it refuses new claims, by a quota or for
//	                                              want of room; absent if it cannot tell
//	dedup_store_oldest_timestamp_seconds   gauge  RegisterStore: when the oldest data still kept was written; absent if there is none
//	dedup_store_vouched_timestamp_seconds  gauge  RegisterStore: since when the store's memory is complete
//	dedup_store_changes_total          counter    RegisterStore: times that a server of the store was replaced, restarted or added
//	                                              since its data began; its memory is complete only since the last time
//
// A message is unfinished while it is in flight, and after a delivery that did not
// settle it, until it is settled here or was not delivered again for five minutes
// after it was due. Its age counts from the broker's timestamp, and without one
// from the delivery.
package metrics
