// Package metrics exports figures of a [dedup.Deduplicator] and its store to Prometheus.
//
//	m, err := metrics.New(registry, "billing", &metrics.Options{TTL: ttl})
//	if err != nil { ... }
//	d, err := dedup.New(store, "billing", key, &dedup.Options{TTL: ttl, Hooks: m.Hooks(dedup.Hooks{})})
//	if err != nil { ... }
//	err = metrics.RegisterStore(registry, "billing", store)
//
// Every metric has the label scope. No label contains a key, a payload, a topic or a subject, so
// the number of series does not grow with the traffic. Several scopes can share one registry.
// Histograms are native and classic at once: the scraper chooses.
//
//	metric                             type       meaning
//	dedup_messages_total               counter    deliveries, by outcome: processed, duplicate, busy, failed, parked,
//	                                              conflict, unkeyed, stale, ambiguous, uncertain, unavailable,
//	                                              already_parked: these came under a parked key. To have one
//	                                              processed, release its key and publish it again
//	dedup_duplicates_total             counter    deliveries answered from a record, by cause: redelivery (the broker
//	                                              delivered the same message again), republish (another message in the
//	                                              same topic or stream has the key), other_source (a message in another
//	                                              topic or stream has the key)
//	dedup_ambiguous_total              counter    messages settled, or halted at, whose earlier run may have had its
//	                                              effect: a plain effect may have happened twice
//	dedup_stale_total                  counter    messages settled, or halted at, that are older than the store's memory
//	dedup_lease_lost_total             counter    handlers that lost their claim while they ran
//	dedup_handlers_hung                gauge      handlers that have outlived HandlerTimeout and their lease, and have not
//	                                              returned. Each keeps its slot of Options.Concurrency
//	dedup_handler_seconds              histogram  run time of the handler; of a batch handler, the time of the whole
//	                                              batch, once for each message
//	dedup_in_flight                    gauge      deliveries inside Do, DoBatch or Settle
//	dedup_duplicate_age_seconds        histogram  age of the key, counted from its first claim, when a duplicate came.
//	                                              If duplicates come near the TTL, the TTL is too short
//	dedup_window_headroom_seconds      gauge      the TTL minus the age of the oldest unfinished message. At 0 the store
//	                                              begins to forget keys that a backlog still holds
//	dedup_store_seconds                histogram  time that each Apply of the store took
//	dedup_store_batch_ops              histogram  number of operations in each Apply
//	dedup_store_errors_total           counter    calls of Apply that answered no operation
//	dedup_store_up                     gauge      RegisterStore: 1 if the store answered with its figures; else 0, and
//	                                              the metrics below are absent
//	dedup_store_records                gauge      RegisterStore: records, with those that expired and are not dropped yet
//	dedup_store_bytes                  gauge      RegisterStore: room that it takes, on disk or in the server's memory
//	dedup_store_limit_bytes            gauge      RegisterStore: the size at which it refuses new claims, because of a
//	                                              quota or of a full disk; absent if it cannot tell
//	dedup_store_oldest_timestamp_seconds   gauge  RegisterStore: when the oldest data that is still kept was written;
//	                                              absent if there is none
//	dedup_store_vouched_timestamp_seconds  gauge  RegisterStore: from when on the store's memory is complete
//	dedup_store_changes_total          counter    RegisterStore: times that a server of the store was replaced, restarted or added
//	                                              since its data began; its memory is complete only since the last time
//
// A message is unfinished while it is in flight. After a delivery that did not settle it, it stays
// unfinished until it is settled here, or until it has been due for five minutes and was not
// delivered again. Its age counts from the broker's timestamp, or from the first delivery if there
// is no timestamp.
package metrics
