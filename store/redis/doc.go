// Package redisstore keeps the records of a [dedup.Deduplicator] on Redis 7 or later: on one
// server, on servers found by Sentinel, or on a Redis Cluster. Many processes share it.
// [New] makes a store of a client.
//
// # Durability
//
// All decisions are made on the server, by scripts that do the same as [driver.Step] and use
// the server's clock. An answer is as durable as the server makes it:
//
//	appendfsync   a killed server loses   a machine that loses power loses
//	always        nothing                 nothing
//	everysec      nothing                 up to two seconds
//	no            nothing                 what the system had not written yet
//	(no AOF)      all since the snapshot  all since the snapshot
//
// Replication is asynchronous, so a failover can lose the latest answers. A master that is
// cut off from its replicas goes on answering, unless min-replicas-to-write forbids it: two
// processes that talk to different masters can then hold the same key. Stats and the log
// name the settings in force.
//
// # Losses that are noticed
//
// Each pipeline asks the server for its run_id and master_replid. They change when a server
// was restarted, replaced by a replica, or added to the cluster. If the store meets new
// ones, it raises Since (see [driver.Vouch]) to that moment before it uses the answer. This
// holds for every process that shares the store: a message that was published before that
// moment and has no record is stale. A restart with appendfsync always has lost nothing, and
// messages are flagged all the same.
//
// If somebody empties the database of a running server, the store notices by the missing key
// PREFIXstore, within ten seconds. Until then repeats are not flagged. On a cluster, only the
// server that holds that key is noticed.
//
// # Losses that are not noticed
//
//   - Slots of a dead master that had no replica were given to a known master
//     (redis-cli --cluster fix).
//   - Records were evicted after maxmemory-policy had been changed while processes ran. It is
//     checked when a server is first met.
//   - A process still talks to an old master after a failover.
//   - A copy of a message is published after the loss. Its timestamp is new, so it is not
//     stale.
//
// After one of the first two, restart the processes.
//
// # Memory
//
// A server whose maxmemory-policy is not noeviction is refused, because it may evict records.
// When the server's memory is full, new claims are refused, and operations that end a claim
// are accepted.
//
// # Tokens and clocks
//
// A token is the greatest of three numbers: the key's previous token + 1, the server's
// microseconds since 1970, and the caller's floor + 1. A record whose token is ahead of the
// clock is kept until the clock has passed it, even if it is forgotten. A high-water mark of
// the tokens is shared through PREFIXstore and is at most some ten seconds old. So tokens
// grow even if a record expires, and even if a clock is set back. There is one exception:
// after a failover to a server whose clock is behind, a token that the replica never received
// may be followed by a smaller one, by at most the difference of the clocks.
//
// If a server's clock is set forward, leases end early. Their holders stop by their own
// clocks, and a run that takes over is flagged Ambiguous. If it is set back, the claims of dead
// processes last longer.
//
// # Keys and memory
//
//	PREFIX + 16 bytes   a record; see codec.go for its layout
//	PREFIXstore         identity, horizon, high-water mark, servers met; JSON
//	PREFIXsources       names of topics and streams, by the tags in the records
//
// A record begins with the version of its format, which is 2. Records of version 1 are read.
// An operation on a record of a later version fails, with an error that says so, and changes
// nothing. So programs of both versions can share a server, and the older ones leave the
// newer records alone.
//
// Each record's key has its own slot. A completed record with an empty result takes 42 bytes of
// value. With its key, its expiry and its share of two hash tables, that is about 180 bytes
// of the server's memory. With longer results:
//
//	bytes = messages per second x TTL in seconds x (180 + result, if longer than a few bytes)
//
// While the server rewrites its append-only file, it can take twice that. The server frees a
// record when its TTL has passed.
//
// # Access
//
// A user needs only the following, with the store's prefix. +config|get is used to name
// appendfsync in Stats. The last line is needed only for a cluster.
//
//	ACL SETUSER dedup on >PASSWORD resetkeys ~oq:* resetchannels -@all
//	  +evalsha +script|load +get +set +del +time +hget +hsetnx +scan +dbsize
//	  +info +config|get +ping +hello +auth +select
//	  +cluster|slots +cluster|shards +asking +readonly +command
package redisstore
