package dedup

import (
	"context"
	"iter"
	"time"
)

// MaxBatch is the largest number of operations that one Apply receives.
const MaxBatch = 4096

// Store keeps one Record for each ID and changes it by Step, atomically for
// everyone who shares the store. Its methods are called by many goroutines at
// once. The package storetest holds a store to this contract.
type Store interface {
	// Apply carries out ops, at most MaxBatch of them, and returns one Reply for
	// each, in order.
	//
	//   - Operations on one ID act in their order in ops; operations on different
	//     IDs are independent: one that fails does not fail the others.
	//   - A Reply without Err is durable, to the degree the store documents. With
	//     Err, the state of that operation is unknown: the caller may send it
	//     again, and a nonce or token makes that safe.
	//   - An error of Apply itself means that nothing was attempted. The store does
	//     not retry; it gives up when ctx ends.
	//   - An error marked by Permanent says that the store will never answer again:
	//     it must be opened anew, or an operator must look.
	//   - No ops is no work: an empty answer, and no error.
	//   - Neither ops nor the byte slices in them may be kept or changed after the
	//     return; the Result of a Reply belongs to the caller.
	//   - A batch of OpExtend alone does not wait for other batches: leases would
	//     lapse behind a slow disk.
	Apply(ctx context.Context, ops []Op) ([]Reply, error)

	// Vouch says how far back the store's memory is complete. It is called after
	// claims were granted, so it answers from memory.
	//
	// A longer TTL raises Since, because records made under the shorter one are
	// forgotten too early for it. Let an op other than OpExtend carry, at the time
	// t, a TTL greater than all that the store has seen, of which the greatest was
	// old: Since is max(Since, t-old) then, and follows now-old up to t, when the
	// last of those records is forgotten. The first TTL of all raises nothing, nor
	// does one no greater than another before, so Deduplicators with different TTLs
	// can share a store. A durable store keeps what it takes for that across
	// restarts, also when no record is left.
	Vouch(ctx context.Context) (Vouch, error)
}

// Pipelined is implemented by a store that wants more than one Apply under way,
// such as one behind a network. Without it there is one at a time (and batches
// of OpExtend beside it).
type Pipelined interface {
	// Applies returns how many calls of Apply may be under way at once.
	Applies() int
}

// Recycler is implemented by a store that makes use of replies again: those of a
// large batch are a megabyte, which is cleared, and collected, for each Apply.
type Recycler interface {
	// Recycle takes back what an Apply returned, whole, when nobody uses it any more.
	// It is called by many goroutines at once, and not for every Apply; the replies
	// may have been changed, and what their Results hold stays the caller's. Who
	// embeds a Store and keeps what its Apply returned overrides it.
	Recycle(replies []Reply)
}

// Vouch is a store's word on its own memory.
type Vouch struct {
	ID     string    // identity of the store, the same as long as it is the same memory
	Since  time.Time // every record made since then, and not yet expired, is there; never falls
	Shared bool      // whether several processes can use the store at once
}

// Inspector is implemented by stores that let operators look inside. Its
// methods may be used while the store serves.
type Inspector interface {
	// Lookup returns the record of id; the zero Record if there is none.
	Lookup(ctx context.Context, id ID) (Record, error)
	// Records yields the records in no particular order. A record that changes
	// meanwhile is seen before or after its change; one that neither appears nor
	// expires meanwhile is seen once. After an error the iteration ends.
	Records(ctx context.Context) iter.Seq2[StoredRecord, error]
	// Stats returns figures about the store.
	Stats(ctx context.Context) (Stats, error)
	// Forget removes the records of ids, so that their messages are processed
	// anew. It refuses all of them, with an error that matches ErrBusy, if one is
	// claimed, under a living lease or not, or is ambiguous: its message would run
	// again, and nobody would be told that an earlier run may have had its effect. An
	// id without a record is no error.
	Forget(ctx context.Context, ids []ID) error
	// ForceForget is Forget for claimed and ambiguous records too. Its risk: the
	// message of such a record may have its effect again without being flagged. If the
	// holder of a claim lives, the message may run beside it. ForceForget refuses all
	// of ids, with an error that matches ErrBusy, if one has a claim with a note: only
	// a reader of the note can tell how the run ended.
	ForceForget(ctx context.Context, ids []ID) error
}

// StoredRecord is a Record and the ID it belongs to.
type StoredRecord struct {
	ID ID
	Record
}

// Stats are figures about a store. A store leaves at zero what it cannot tell.
type Stats struct {
	Records int64     // records remembered, expired ones not yet dropped included
	Bytes   int64     // on disk, or in the server's memory
	Limit   int64     // at so many Bytes new claims are refused, by a quota or for want of room
	Oldest  time.Time // when the oldest data still kept was written
	Now     time.Time // the store's clock
	Token   Token     // highest token issued
	// Durability says in words what an answer survives.
	Durability string
	// Changes counts how often a server was replaced, restarted or added since the
	// store's data began: each time raised Vouch.Since.
	Changes int64
	Vouch   Vouch
}
