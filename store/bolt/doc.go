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
// between 4 and 16 MiB. When that cannot be kept, new claims are refused with
// ErrFull, and likewise at Options.MaxBytes; duplicates are answered as ever.
// Nothing that lives is dropped, and claims are granted again when there is room:
// because records expired, or somebody freed space. To get rid of what expired in
// the newest file takes a moment in which nothing runs. Where a file system has no
// fallocate(2), the free space of the disk takes the place of the room that is
// owned, and others may use it up; elsewhere than on Linux nothing is kept.
//
// One process uses a directory at a time, so every claim that Open finds in the
// files belongs to a run that died: its lease has ended, and the next claim of
// that key is Ambiguous.
//
// Time passes on a monotonic clock while the store is open, and what the wall
// clock does then does not matter. On Linux that holds while it is closed, too, up
// to the next boot of the system, whose own clock Open goes by. After a boot, in
// another container with a time namespace, and elsewhere, Open starts from the wall
// clock, or from the last time on record if that is later. So a wall clock that is
// ahead then makes the store forget that much too early, and nobody can tell: have
// the clock right first. One that was behind, or a system that slept while the store
// was open, leaves store time behind until the next boot: the store remembers as
// long as ever, and vouches for no more than the TTL before the wall clock. Open
// warns in the log when store time and the wall clock are not the same.
//
// # What it takes
//
// A message takes 180 bytes on disk, for its claim and its record, 140 where many
// are recorded at a time, and its result beside; a remembered key at most 32 bytes
// of memory. They are kept for the TTL and RollAge, so
//
//	disk   = messages a second x (TTL + RollAge) x (180 + result) + 32 MiB
//	memory = messages a second x (TTL + RollAge) x 32
//
//	messages a second   TTL 24h: disk   memory   TTL 7d: disk   memory
//	               10         200 MB     29 MB         1.1 GB   200 MB
//	              100         1.7 GB    290 MB          11 GB   2.0 GB
//	            1,000          16 GB    2.9 GB         110 GB    20 GB
//
// Without results, in decimal units, with RollAge 1h. The operating system caches
// files beside.
//
// # Operating it
//
// Lookup, Records, Stats and Forget work while the store serves; Records takes its
// time and stalls nobody. Stats.Bytes of Stats.Limit says how full the store is.
// Store.Backup makes a copy while the store serves. Verify reads everything in a
// store that is not open, and Repair drops what cannot be read.
//
// Open reads every page and checksum before it trusts a file, and a record is checked
// again when it is read. What damages a file while it is open is an error of those who
// read there, with one exception: branch pages that have come to form a loop, which
// bbolt follows until the process is out of memory. The next Open names the page.
//
// Open warns in the log of a file system that does not keep what a disk keeps: a
// network's, FUSE, an overlay, memory.
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
// Leases are renewed in memory; a note that a claim gets later is on disk before it
// is answered. A claim that is renewed for long is written
// again now and then, so that after a crash its record outlives the last renewal
// by at least 15/16 of its TTL.
//
// # Format
//
//	LOCK            locked by the process that uses the directory; holds its id
//	log-<n>.db      bbolt: a bucket "log", sequence number -> an entry, or a pack
//	                of several from that number on, and a bucket "head" with a
//	                copy of the first entry
//	log-<n>.db.tmp  a file that was being made when the process died
//
// A sequence number is 8 bytes, big-endian; they continue from file to file, and
// the bucket's own bbolt sequence is the last one of the file. The first entry
// of each file holds the identity of the store, its clock and highest token, its
// longest TTL, and since when it remembers. Every entry, and every pack, starts with
// the version of the format and ends with a CRC-32C of its sequence number and
// itself. Entries of earlier versions are read. A store with an entry of a later one
// is refused, with ErrFormat, and left as it is. See codec.go and pack.go.
package boltstore
