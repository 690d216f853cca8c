// Package kafkatransport runs a dedup.Deduplicator under a Kafka consumer group
// (Consumer) and writes messages to Kafka (Sink), on the client library
// segmentio/kafka-go.
//
// # What a Consumer holds to
//
//   - An offset is committed only when every message before it is settled:
//     recorded, or its dead letter confirmed. Committed offsets never move back.
//   - Messages of one key are handled in the order of their partition; different
//     keys at the same time. A message that has to be tried again holds back the
//     later messages of its key, and so does a handler that does not return.
//   - When partitions are taken away, or at shutdown, nothing new starts, and
//     running handlers may finish. One that outlasts DrainTimeout has its context
//     cancelled with ErrRevoked; it may still record its result, it can no longer
//     commit. Its claim stays held, so that the partition's new owner waits for it.
//   - A commit says with which store the partition was consumed. Where that was
//     another one, or the store is not shared and a commit does not say so, the
//     messages written before are flagged Stale.
//   - A message that the Deduplicator halts at stops its partition; the others go on.
//   - Transaction markers and the records of aborted transactions are not handed out.
//   - Published is the broker's own timestamp where the topic has
//     message.timestamp.type=LogAppendTime, else the producer's. It is zero for a
//     record without one (-1).
//   - Members on other clients may share the group if they offer the assignor range or
//     roundrobin, as Java's do by default. The store does not know of messages that they
//     process.
package kafkatransport
