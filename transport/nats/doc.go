// Package natstransport runs a dedup.Deduplicator under a JetStream consumer
// (Consumer) and writes messages to JetStream (Sink), on the client library
// nats.go.
//
// # What a Consumer holds to
//
//   - A message is acknowledged only when it is settled: recorded, or its dead
//     letter confirmed and recorded. An acknowledgement that is lost costs a
//     redelivery, which is answered from the record.
//   - There is no order, unless Config.OrderBy asks for one: a message that has to be
//     tried again is handed back to the server, and the others go on.
//   - The server keeps waiting for messages in hand, queued or running, however
//     long their handlers take, until a handler loses its lease: from then on the
//     message may go to another. A delivery that the server may have given to
//     another in the meantime is not run.
//   - It binds to a durable consumer that exists, never changes it, and binds again
//     by itself when it was deleted and created anew.
//   - At shutdown nothing new starts, what has not started is handed back at once,
//     and running handlers may finish.
//
// JetStream itself is no fence: it takes acknowledgements from deliveries that have
// expired, and may deliver a message early after a restart. What keeps two handlers
// apart is the lease in the store. Let dedup.Options.Lease be longer than the
// consumer's AckWait, by a second or more, so that a message which comes early finds
// its key held, and is handed back, instead of being taken over and run twice,
// flagged.
//
// An acknowledgement names a message by its sequence number. Where a stream is
// deleted and created anew under consumers that run, numbers begin again, and what
// answers a message of before could hit another one. A Consumer answers nothing from
// before once it learns of the deletion: by the server's advisories, which a user
// with limited permissions needs $JS.EVENT.ADVISORY.> for, by the end of its requests,
// by the consumer's count of deliveries, or by asking, every ten seconds and after each
// loss of the connection. An answer under way at the moment of the deletion can still
// arrive after it, and a stream restored from a backup looks like the same one: stop
// the consumers before that.
package natstransport
