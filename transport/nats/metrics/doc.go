// Package natsmetrics exports figures of a [natstransport.Consumer] to Prometheus.
//
//	err := registry.Register(natsmetrics.New(consumer))
//
// Every metric has the labels stream and consumer. A scrape asks no server.
//
//	metric                              type     meaning
//	dedup_nats_bound                    gauge    1 while this member is bound to the durable consumer
//	dedup_nats_failing                  gauge    1 while the connection, the consumer or pulling from it fails
//	dedup_nats_halted                   gauge    1 if this member has halted: an operator must look
//	dedup_nats_in_hand                  gauge    messages delivered to this member and not answered
//	dedup_nats_pending                  gauge    messages that the durable consumer has not delivered yet
//	dedup_nats_ack_pending              gauge    messages delivered and not acknowledged, of all members. At the limit
//	                                             no member gets messages
//	dedup_nats_ack_pending_limit        gauge    max_ack_pending of the durable consumer; -1 if there is no limit
//	dedup_nats_redeliveries_total       counter  deliveries of messages that were delivered before
//	dedup_nats_stale_deliveries_total   counter  deliveries not run, because they waited here for longer than AckWait
//	dedup_nats_ack_failures_total       counter  answers not sent or not confirmed: their messages come again
//	dedup_nats_max_deliveries_total     counter  messages that the server gave up on, because the durable consumer has
//	                                             a max_deliver: they are lost, whichever member had them
//	dedup_nats_binds_total              counter  times that this member was bound
//
// The gauges pending, ack_pending and ack_pending_limit are at most some ten seconds old. They are
// absent outside Run.
package natsmetrics
