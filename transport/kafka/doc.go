// Package kafkatransport runs a [dedup.Deduplicator] under a Kafka consumer group: see
// [Consumer]. It also writes messages to Kafka: see [Sink]. It uses the client library
// segmentio/kafka-go. For a read loop of your own there is [Message].
//
// # Rules of a Consumer
//
//   - An offset is committed only when every earlier message of its partition is settled: the
//     result is recorded, or the dead letter is confirmed. Committed offsets never move back.
//   - [Consumer.Run] handles the messages of one key in the order of their partition, and
//     different keys at the same time. If a message has to be tried again, the later messages
//     of its key wait. They also wait behind a handler that does not return.
//   - When partitions are taken away, or Run's context ends, no handler is started any more,
//     and running handlers may finish. The context of a handler that is still running after
//     DrainTimeout ends with the cause [ErrRevoked]. Its result may still be recorded, but its
//     offset is not committed. It keeps its claim, so the partition's new owner waits for it.
//   - A commit names the store with which the partition was consumed. If a partition was
//     consumed with another store, its earlier messages are flagged Stale. The same holds if a
//     commit does not name a store and this store is not shared.
//   - If the Deduplicator halts at a message, its partition stops. The other partitions go on.
//   - Transaction markers and the records of aborted transactions are never handed to a
//     handler.
//   - Published is the broker's own timestamp if the topic has
//     message.timestamp.type=LogAppendTime, and the producer's otherwise. It is zero for a
//     record without a timestamp (-1).
//   - Members with other clients may share the group if they offer the assignor range or
//     roundrobin, as Java's do by default. The store does not know the messages that they
//     process.
package kafkatransport
