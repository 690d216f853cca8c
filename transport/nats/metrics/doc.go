// Package natsmetrics shows a natstransport.Consumer to Prometheus.
//
//	err := registry.Register(natsmetrics.New(consumer))
//
// Every metric has the labels stream and consumer. A scrape asks no server.
//
//	metric                              type     what
//	dedup_nats_bound                    gauge    1 while this member is bound to the durable consumer
//	dedup_nats_failing                  gauge    1 while the connection, the consumer or pulling from it fails
//	dedup_nats_halted                   gauge    1 if it has halted: an operator must look
//	dedup_nats_in_hand                  gauge    messages delivered to this member and not answered
//	dedup_nats_pending                  gauge    messages that the durable consumer has not delivered yet
//	dedup_nats_ack_pending              gauge    messages delivered and not acknowledged, of all members. At the limit
//	                                             nobody gets anything
//	dedup_nats_ack_pending_limit        gauge    max_ack_pending of the durable consumer; -1: none
//	dedup_nats_redeliveries_total       counter  deliveries of messages that were delivered before
//	dedup_nats_stale_deliveries_total   counter  deliveries refused, because they waited here for longer than AckWait
//	dedup_nats_ack_failures_total       counter  answers not sent, or not confirmed: their messages come again
//	dedup_nats_max_deliveries_total     counter  messages that the server gave up on, to any member: lost to all,
//	                                             because somebody has bounded max_deliver
//	dedup_nats_binds_total              counter  times that this member was bound
//
// The gauges of the durable consumer are as of at most some ten seconds ago, and
// absent while no Run goes on.
package natsmetrics
