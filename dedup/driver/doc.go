// Package driver has the contract between a dedup.Deduplicator and its store. It is for
// authors of stores, and for tools that read or change a store. Programs that only process
// messages need package dedup alone.
//
//   - The contract: [Store], with the optional [Pipelined], [Recycler] and [Inspector]. The
//     package dedup/storetest tests a store against it.
//   - The operations: [Op], [OpKind], [Reply], [Status], [MaxBatch], [MaxNote].
//   - The rules: [Step], [NextToken], [Record], [State].
//   - The names: [ID], [Token], [Position], [Fingerprint], [Tag].
//   - The memory: [Vouch]. The figures: [Stats].
//   - Errors: [Permanent] and [IsPermanent], [ErrBusy].
//
// # How to write a store
//
// Load the record of an ID, call [Step], save the record that Step returns, and answer with
// its reply. Decide nothing else. Take the token from [NextToken]. Tell the time by one
// clock, which is the store's. The package store/mem is the smallest store.
package driver
