// Package lanes hands the messages of many partitions to a Deduplicator: the
// messages of one key in their order, other keys beside them.
//
// A Pool is the workers of one Run or RunBatch. Each partition has a Line in it, for as
// long as this member holds the partition. A Line comes and goes by itself; the workers
// and the other Lines go on meanwhile.
//
//	Line.Put -> queue -> Line.take -> DoEach or DoBatch -> Line.finish -> settled
//	              |                                           |
//	              +-> group: waits behind its key  <----------+ tried again later
//
// # What a Line holds to
//
//   - A key is with one call at a time. While a message of it runs, or waits for its
//     next try, the later ones wait in the key's group, in their order.
//   - Groups hold up nothing: other keys pass them.
//   - A handler that does not return holds up its own key only. In a Pool of single
//     handlers it occupies one worker; messages that share its call are taken out of
//     it after stuckAfter, and tried elsewhere. In a Pool of batch handlers it holds
//     up the keys of its batch; the Line begins further batches after overdueAfter.
//   - After Stop nothing new begins. Idle tells when the running calls have returned.
//
// Messages are tried again as often as it takes. A Line never gives up on one: the
// Deduplicator decides, by its attempts and policies, and answers Settled or Halt.
package lanes
