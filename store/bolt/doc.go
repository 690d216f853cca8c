// Package boltstore keeps the records of a Deduplicator on local disk, in bbolt
// files: embedded, durable, and for one process at a time.
//
// # What it promises
//
// A Reply is sent after its change was written and fsynced. A process that is
// killed, or a machine that loses power, loses nothing that was answered; what
// was not answered may or may not have happened. After a write or an fsync that
// failed nobody knows what the disk holds: the Store then refuses all further
// work with ErrPoisoned, and a new Open finds out.
//
// A full disk is no such failure. On Linux the newest file owns room on the disk
// beyond what is in use, so that what runs can be settled: a 16th of RollBytes,
// between 4 and 16 MiB, which is some 50,000 records without results. When that cannot be
// kept, new claims are refused with ErrFull, likewise at Options.MaxBytes; duplicates are
// answered as ever. Nothing that lives is dropped, and claims are granted again when there
// is room: because records expired, or somebody freed space. Where a file system
// has no fallocate(2), the free space of the disk takes the place of the room that
// is owned, and others may use it up.
//
// One process uses a directory at a time, so every claim that Open finds in the
// files belongs to a run that died: its lease has ended, and the next claim of
// that key is Ambiguous.
//
// # How it works
//
// A store is a directory. Records are appended to the newest of its files, in
// the order of their sequence numbers, one transaction for each batch: appending
// fills pages one after the other, where updating records in place would rewrite
// a page for each of them. An index in memory, 16 bytes and some air for each
// key, says where a key's newest record is. Open reads all files to build it.
//
// A file takes records until it is Options.RollBytes large or Options.RollAge
// old. When nearly all its records have expired, the few that live are appended
// again and the file is removed as a whole, oldest file first.
//
// Leases are renewed in memory. A claim that is renewed for long is written
// again now and then, so that after a crash its record outlives the last renewal
// by at least 15/16 of its TTL.
//
// # Format
//
//	LOCK            locked by the process that uses the directory; holds its id
//	log-<n>.db      bbolt, one bucket "log": sequence number -> entry
//	log-<n>.db.tmp  a file that was being made when the process died
//
// A sequence number is 8 bytes, big-endian; they continue from file to file, and
// the bucket's own bbolt sequence is the last one of the file. The first entry
// of each file holds the identity of the store, its clock and highest token, its
// longest TTL, and since when it remembers. Every entry starts with the version of the format and
// ends with a CRC-32C of its sequence number and itself. See codec.go.
package boltstore
