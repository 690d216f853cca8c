// Package boltstore keeps the records of a [dedup.Deduplicator] on the local disk, in
// bbolt files. It is embedded and durable, and one process uses a store at a time.
// [Open] opens a store.
//
// # Durability
//
// A change is written and fsynced before it is answered. A process that is killed, or a
// machine that loses power, loses nothing that was answered. A change that was not yet
// answered may or may not be on disk.
//
// After a failed write or fsync nobody knows what the disk holds. The Store then refuses
// all further work with [ErrPoisoned]. A new Open reads what is there.
//
// # A full disk
//
// A full disk is not such a failure. The store refuses new claims with [ErrFull] while
// there is room left to record the runs that have begun. Duplicates are answered as
// before. No record that has not expired is dropped. When there is room again, because
// records expired or an operator freed space, claims are granted again. The same happens
// when the store reaches Options.MaxBytes.
//
// On Linux the room for the runs that have begun is kept on disk in advance: a 16th of
// RollBytes, between 4 and 16 MiB. On a file system without fallocate(2) the store
// watches the free space of the disk instead, and other programs can use that up. On
// other systems than Linux no room is kept.
//
// Expired records of the newest file take up room until the next file is begun. If the
// store needs that room, it stops all work for a moment to free it.
//
// # One process
//
// One process uses a directory at a time. Every claim that Open finds in the files
// therefore belongs to a run that died: its lease is over, and the next claim of that key
// is flagged Ambiguous.
//
// # Time
//
// While the store is open, its time follows a monotonic clock, and it does not matter if
// the wall clock is set. On Linux its time also goes on correctly while the store is
// closed, until the system is booted again.
//
// After a boot, in another container with a time namespace, and on other systems, Open
// starts from the wall clock, or from the last time on record if that is later. Set the
// wall clock right before that. If it is ahead, the store forgets records that much too
// early, and nobody can notice. If it is behind, or if the system slept while the store was
// open, the time of the store stays behind until the next boot. The store then remembers as
// long as ever, and vouches for no more than the TTL before the wall clock. Open warns in
// the log if the two times differ.
//
// # Size
//
// A message takes 180 bytes on disk for its claim and its record, or 140 if many are
// recorded at a time, plus the length of its result. A remembered key takes at most 32
// bytes of memory. Both are kept for TTL and RollAge together:
//
//	disk   = messages a second x (TTL + RollAge) x (180 + result) + 32 MiB
//	memory = messages a second x (TTL + RollAge) x 32
//
//	messages a second   TTL 24h: disk   memory   TTL 7d: disk   memory
//	               10         200 MB     29 MB         1.1 GB   200 MB
//	              100         1.7 GB    290 MB          11 GB   2.0 GB
//	            1,000          16 GB    2.9 GB         110 GB    20 GB
//
// The table is for messages without results, in decimal units, with RollAge 1h. The
// operating system's file cache comes on top.
//
// # Operation
//
// Lookup, Records, Stats and Forget work while the store is in use. Records takes its time
// and delays nobody. Stats.Bytes and Stats.Limit tell how full the store is.
//
// [Store.Backup] makes a copy while the store is in use. A raw copy of the directory, by
// cp or as a snapshot of the volume, is not a backup: if it is put back, the store claims
// to remember messages that were recorded after the copy was made, and they run again
// without a flag.
//
// [Verify] reads a whole store that is not open and reports damage. [Repair] drops what
// cannot be read.
//
// Open reads every page and checksum before it trusts a file, and a record is checked again
// when it is read. If a file is damaged while it is open, the operations that read the
// damaged place return an error. There is one exception: if branch pages come to form a
// loop, bbolt follows it until the process is out of memory. The next Open names the page.
//
// Open warns in the log if the directory is on a file system that keeps less than a local
// disk does: a network file system, FUSE, an overlay, memory.
//
// # How it works
//
// A store is a directory of files. Records are appended to the newest file, in the order of
// their sequence numbers, in one transaction for each batch. Appending fills one page after
// the other. Changing records in place would write a whole page for each of them. An index
// in memory says where the newest record of each key is: 16 bytes for each key, and some
// room to grow. Open reads all files to build the index.
//
// A file takes records until it is Options.RollBytes large or Options.RollAge old. When
// nearly all its records have expired, the few others are appended again, and the file is
// removed as a whole. The oldest file goes first.
//
// Leases are renewed in memory. A note that a claim gets later is on disk before the answer.
// A claim that is renewed for a long time is written again from time to time, so that after
// a crash its record lives for at least 15/16 of its TTL after the last renewal.
//
// # Format
//
//	LOCK            locked by the process that uses the directory; holds its id
//	log-<n>.db      bbolt: a bucket "log", sequence number -> an entry, or a pack
//	                of several from that number on, and a bucket "head" with a
//	                copy of the first entry
//	log-<n>.db.tmp  a file that was being made when the process died
//
// A sequence number is 8 bytes, big-endian. Sequence numbers continue from file to file,
// and the bucket's own bbolt sequence is the last one of the file. The first entry of each
// file holds the identity of the store, its clock and highest token, its longest TTL, and
// since when it remembers. Every entry, and every pack, starts with the version of the
// format and ends with a CRC-32C of its sequence number and itself.
//
// Entries of earlier versions are read. A store with an entry of a later version is refused,
// with ErrFormat, and left as it is. See codec.go and pack.go.
package boltstore
