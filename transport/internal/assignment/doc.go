// Package assignment is what a member of a Kafka consumer group does with the
// partitions that it was given, whatever client library talks to the brokers.
//
// A Run is one Run or RunBatch of a Consumer. An Assignment is the partitions that
// this member holds, with the way to commit for them. With an eager protocol each
// generation of the group is an Assignment. With a cooperative one there is a single
// Assignment, and partitions are added and drained one by one.
//
// # The life of a partition
//
//	Add        it is this member's; nothing is asked yet
//	Identify   who consumed it last, and where it begins: the group's last commit tells
//	Begin      its first offset is known; it waits for the commit that names the store
//	Put        messages go to the lanes, as there is room for them
//	Halt       an operator must look: the others go on
//	Drain      nothing new begins, handlers finish, the last commit is made; then it is over
//	Lose       the same without a commit: the group has given it to another
//
// # What an Assignment holds to
//
//   - An offset is committed only when all messages before it are settled. Committed
//     offsets never move back, but for a log that began anew.
//   - Nothing is committed for a partition after Drain or Lose has returned. A message
//     that is settled later is recorded and counted as late.
//   - The first commit for a partition comes before its first message is handed out,
//     and names the store. A partition without messages gets one, too: the anchor.
//   - Commits come one after the other: Commit may be called by several goroutines.
//
// # How a transport uses it
//
// A client that fetches each partition by itself runs a goroutine for each:
//
//	a.Identify(ctx, a.Partitions(), func(p *Partition) { go fetch(p) })
//
//	func fetch(p *Partition) {
//		offset := p.First()                   // >= 0, or Earliest, or Latest
//		offset = p.StartAt(logStart, logEnd)  // in the latter cases
//		if !p.Begin(offset) { return }
//		for p.Fetching().Err() == nil { ...; p.Put(messages, next) }
//	}
//
// A client that polls for all partitions at once must not wait for one of them. It
// makes a Feeder for each partition, and pauses a partition whose Feeder is full until
// the Feeder says that there is room. It keeps the client's rebalances blocked from the
// poll until all that it brought was given to the Feeders, and calls Drain in the
// client's callback for revoked partitions, Lose in that for lost ones.
//
// Both call Commit every CommitInterval, and look at AllHalted.
package assignment
