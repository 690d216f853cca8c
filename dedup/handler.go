package dedup

import "context"

// Handler processes one message and returns the result to record, which may be nil.
// It runs in the goroutine that called Do. It must return soon after ctx ends.
//
// An error means that the message has to run again, after Options.Backoff. The marks
// [Permanent], [RetryAfter], [Transient] and [MaybeDone] tell more than a bare error.
//
// A panic becomes an error that matches [ErrPanic]. A panic counts as MaybeDone, and so
// does any error that the handler returns after its context has ended.
type Handler func(ctx context.Context, m *Message) (result []byte, err error)

// Answer is what a [BatchHandler] returns for one message.
type Answer struct {
	Result []byte // to record; may be nil
	Err    error  // as a Handler returns it; then Result is ignored
}

// BatchHandler processes several messages in one call. Those that have a key have
// different keys. They come in the order of delivery, and BatchHandler returns one
// Answer for each, in the same order. With any other number of answers, every message
// of the call fails as MaybeDone.
//
// ctx ends when the lease of any one of the messages is lost.
type BatchHandler func(ctx context.Context, ms []*Message) []Answer
