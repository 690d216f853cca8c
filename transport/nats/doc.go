// Package natstransport runs a [dedup.Deduplicator] under a JetStream consumer: see
// [Consumer]. It also writes messages to JetStream: see [Sink], and answers requests: see
// [Reply]. It uses the client library nats.go. For a loop of your own there is [Message].
//
// # Rules of a Consumer
//
//   - A message is acknowledged only when it is settled: the result is recorded, or the dead
//     letter is confirmed and recorded. If an acknowledgement is lost, the message is delivered
//     again and answered from the record.
//   - There is no order unless Config.OrderBy asks for one. A message that has to be tried
//     again is handed back to the server, and others go on.
//   - While a message is in hand, waiting or running, the consumer tells the server so, and
//     the server does not deliver it to anybody else, however long its handler takes. This ends
//     when a handler loses its lease: from then on the server may deliver the message to
//     another member. A delivery that the server may meanwhile have given to another member is
//     not run.
//   - A Consumer binds to a durable consumer that exists and never changes it. If the durable
//     consumer was deleted and created anew, the Consumer binds again by itself.
//   - When Run's context ends, no handler is started any more, messages whose handler has not
//     started are handed back at once, and running handlers may finish.
//
// # Lease and AckWait
//
// JetStream alone does not keep two handlers apart: it accepts acknowledgements of deliveries
// that have expired, and after a restart it may deliver a message early. The lease in the store
// keeps them apart. Make dedup.Options.Lease longer than the durable consumer's AckWait, by a
// second or more. Then a message that is delivered early finds its key held and is handed back.
// Otherwise it is taken over and runs twice, the second time flagged Ambiguous.
//
// # Streams that are deleted
//
// An acknowledgement names a message by its sequence number. If a stream is deleted and created
// anew while consumers run, the numbers begin again, and an acknowledgement from before could
// hit another message. So a Consumer sends no answer from before once it learns of the deletion.
//
// It learns of it by the server's advisories, by the end of its pull requests, by the durable
// consumer's count of deliveries, or by asking: every ten seconds and after each loss of the
// connection. A user with limited permissions needs $JS.EVENT.ADVISORY.> for the advisories.
//
// An answer that is on its way at the moment of the deletion can still arrive after it, and a
// stream that was restored from a backup looks like the old one. Stop the consumers before you
// delete or restore a stream.
package natstransport
