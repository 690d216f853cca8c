// Package redisstore keeps the records of a Deduplicator on Redis 7 or later: on
// one server, one found by way of Sentinel, or a Redis Cluster. Many processes
// share it.
//
// # What it promises
//
// All decisions are made on the server, by scripts that do what dedup.Step does and
// take the server's time. An answer is as durable as the server makes it:
//
//	appendfsync   a killed server loses   a machine that loses power loses
//	always        nothing                 nothing
//	everysec      nothing                 up to two seconds
//	no            nothing                 what the system had not written yet
//	(no AOF)      all since the snapshot  all since the snapshot
//
// Replication is asynchronous, so a failover may lose what was answered just
// before; and a master that is cut off goes on answering, unless
// min-replicas-to-write forbids it. Stats and the log name what is in force.
//
// A loss is not silent. Each pipeline asks the server for its run_id and
// master_replid. When they are new to the store, because the server was restarted,
// replaced by a replica, or added to the cluster, Since (see dedup.Vouch) is raised
// to that moment before the answer is used, for everyone who shares the store: a
// message that was published before, and has no record, is Stale. That errs to the
// safe side, since a restart with appendfsync always has lost nothing. Who empties
// the database of a server that goes on running is noticed within ten seconds and by
// the loss of the key PREFIXstore; on a cluster only with the server that holds it.
//
// Two losses it cannot see: slots of a dead master that had no replica, given to a
// master that is known already (redis-cli --cluster fix), and records evicted after
// maxmemory-policy was changed while processes ran, since it is looked at when a
// server is met. Restart the processes after either.
//
// A server whose maxmemory-policy is not noeviction is refused, for it may evict
// records. When its memory is full, new claims are refused, and what ends a claim is
// taken.
//
// # Tokens and clocks
//
// A token is the greatest of the key's last one + 1, the server's microseconds since
// 1970, and the caller's floor + 1. A record whose token is ahead of the clock is
// kept until the clock has passed it, also when it is forgotten, and a high-water
// mark is shared through PREFIXstore, at most some ten seconds old: so tokens grow
// over expiry, and over a clock that was set back. After a failover to a server
// whose clock is behind, a token that the replica never saw may be followed by a
// smaller one, by at most that difference.
//
// A server's clock that is set forth ends leases early: their holders fence
// themselves by their own clocks, and a take-over is Ambiguous. One that is set back
// lets the leases of the dead live longer.
//
// # Keys and memory
//
//	PREFIX + 16 bytes   a record; see codec.go for its layout
//	PREFIXstore         identity, horizon, high-water mark, servers met; JSON
//	PREFIXsources       names of topics and streams, by the tags in the records
//
// A record begins with the version of its format, which is 2. Those of version 1 are
// read. An operation on a record of a later version fails, with an error that says
// so, and changes nothing: processes of both versions can share a server, and the
// older ones leave the newer records alone.
//
// Each record's key has its own slot. A settled record with an empty result takes
// 42 bytes of value, which with its key, its expiry and its share of two hash tables
// is about 180 bytes of the server's memory; see the figures in the benchmarks. With
// longer results:
//
//	bytes = messages per second x TTL in seconds x (180 + result, if longer than a few bytes)
//
// and twice that while the server rewrites its append-only file, in the worst case.
// The server frees a record when its TTL has passed.
//
// # Access
//
// A user needs no more than this, with the store's prefix; +config|get is only for
// naming appendfsync, and the last line only for a cluster:
//
//	ACL SETUSER dedup on >PASSWORD resetkeys ~oq:* resetchannels -@all
//	  +evalsha +script|load +get +set +del +time +hget +hsetnx +scan +dbsize
//	  +info +config|get +ping +hello +auth +select
//	  +cluster|slots +cluster|shards +asking +readonly +command
package redisstore
