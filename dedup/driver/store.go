package driver

import (
	"context"
	"iter"
	"time"
)

// MaxBatch is the largest number of operations in one call of a store's Apply.
const MaxBatch = 4096

// Store keeps one [Record] for each [ID] and changes it by [Step]. Each change is atomic for
// all processes that share the store. Many goroutines call the methods at once.
//
// Users open a store and pass it to dedup.New. The rest of this comment is for authors of
// stores: the package dedup/storetest tests whether a store keeps this contract.
type Store interface {
	// Apply carries out ops, at most MaxBatch of them, and returns one Reply for each, in
	// the same order.
	//
	//   - Operations on one ID take effect in their order in ops. Operations on different
	//     IDs are independent: if one fails, the others need not.
	//   - A Reply without Err is durable, to the degree that the store documents. With Err,
	//     the operation may or may not have taken effect. The caller may send it again: the
	//     nonce or the token makes that safe.
	//   - An error of Apply itself means that no operation was attempted. The store does not
	//     retry by itself. It gives up when ctx ends.
	//   - An error marked by Permanent means that the store will never answer again: it
	//     must be opened anew, or an operator must look.
	//   - Without ops, Apply returns no replies and no error.
	//   - After the return, the store neither keeps nor changes ops, or the byte slices in
	//     them. The byte slice in Reply.Record.Result belongs to the caller.
	//   - A batch that consists of OpExtend alone does not wait for other batches.
	//     Otherwise leases would lapse while a slow disk is busy.
	Apply(ctx context.Context, ops []Op) ([]Reply, error)

	// Vouch says how far back the store's memory is complete. It is called after claims
	// were granted, so it must answer from memory, without a round trip.
	//
	// Since never falls. It rises when the TTL grows. At the time t, let the first operation
	// (other than OpExtend) carry a TTL that is longer than all before, and let old be the
	// longest before. From then on
	//
	//	Since = max(Since, min(now-old, t))
	//
	// Records that were made under the shorter TTL expire too early for the longer one: at t,
	// those made before t-old are gone, and at t+old the last of them is gone.
	//
	// For example, a store that was created on 1 January has kept records for 1 day. On
	// 11 January at noon the first operation with a TTL of 2 days arrives. Since is then
	// 10 January, noon. It rises with the clock until 12 January, noon, when it has reached
	// 11 January, noon. There it stays.
	//
	// The very first TTL does not raise Since. Neither does a TTL that is not longer than
	// one before, so Deduplicators with different TTLs can share a store. A durable store
	// keeps t and old across restarts, even if no record is left.
	Vouch(ctx context.Context) (Vouch, error)
}

// Pipelined is implemented by a store that can use several calls of Apply at once, such as
// a store behind a network. For other stores a Deduplicator has one call under way at a
// time, and beside it at most one with nothing but OpExtend. It is for authors of stores.
type Pipelined interface {
	// Applies returns how many calls of Apply may be under way at once.
	Applies() int
}

// Recycler is implemented by a store that reuses the slices of replies. The replies of a
// large batch take a megabyte, and without reuse each Apply allocates it anew. It is for
// authors of stores.
type Recycler interface {
	// Recycle takes back a whole slice that Apply returned, when nobody uses it any more.
	// It may be called by many goroutines at once, and need not be called for each Apply.
	// The replies may have been changed. The Result bytes still belong to callers and must
	// not be reused.
	//
	// If you wrap a Store and keep the slice that Apply returned, override Recycle with a
	// method that does nothing.
	Recycle(replies []Reply)
}

// Vouch is a store's statement about its own memory.
type Vouch struct {
	ID     string    // identity of the store; it changes if the store becomes another memory
	Since  time.Time // the store has every unexpired record made since then; never falls
	Shared bool      // whether several processes can use the store at once
}

// Inspector is implemented by stores into which operators can look. All stores of this
// module implement it. The methods may be called while the store is in use, by many
// goroutines at once.
type Inspector interface {
	// Lookup returns the record of id, or the zero Record if there is none.
	Lookup(ctx context.Context, id ID) (Record, error)
	// Records yields all records, in no particular order. A record that changes during the
	// iteration appears as it was before or after the change. A record that is neither
	// created nor expires during the iteration appears exactly once. After an error the
	// iteration ends.
	Records(ctx context.Context) iter.Seq2[StoredRecord, error]
	// Stats returns figures about the store.
	Stats(ctx context.Context) (Stats, error)
	// Forget removes the records of ids, so that their messages are processed as new ones.
	// If one of the keys is claimed, under a lease that has run out or not, or if one of the
	// records is ambiguous, Forget removes nothing and returns an error that matches
	// ErrBusy: its message would run again, and nobody would be told that an earlier run
	// may have had its effect. An id without a record is no error.
	Forget(ctx context.Context, ids []ID) error
	// ForceForget removes claimed and ambiguous records too. Its risk: the message of such a
	// record may have its effect again without being flagged, and, if the holder of the
	// claim lives, beside it. If one of the claims has a note, ForceForget removes nothing
	// and returns an error that matches ErrBusy: only a reader of the note can tell how the
	// run ended.
	ForceForget(ctx context.Context, ids []ID) error
}

// StoredRecord is a [Record] with the ID that it belongs to.
type StoredRecord struct {
	ID ID
	Record
}

// Stats are figures about a store. A figure that the store cannot tell is zero.
type Stats struct {
	Records int64     // number of records, with those that have expired and are not dropped yet
	Bytes   int64     // room that the store takes, on disk or in the server's memory
	Limit   int64     // from this many Bytes on, new claims are refused: a quota, or all the room there is
	Oldest  time.Time // when the oldest data that is still kept was written
	Now     time.Time // the store's clock
	Token   Token     // the highest token issued
	// Durability says in words which failures an answer of the store survives.
	Durability string
	// Changes counts how often a server was replaced, restarted or added since the store's
	// data began. Each change raised Vouch.Since.
	Changes int64
	// Vouch is the store's statement about its own memory.
	Vouch Vouch
}
