package dedup

import "context"

// Handler processes one message. It returns the result to record, which may be
// nil.
type Handler func(ctx context.Context, m *Message) (result []byte, err error)

// Answer is a batch handler's word on one message.
type Answer struct {
	Result []byte
	Err    error
}

// BatchHandler processes several messages, of different keys, in the order of
// delivery. It returns one Answer for each, in order.
type BatchHandler func(ctx context.Context, ms []*Message) []Answer

type Deduplicator struct{}

func New(store Store, scope string, key KeyFunc, o *Options) (*Deduplicator, error) { panic("") }
func (d *Deduplicator) Do(ctx context.Context, m *Message, h Handler) Result        { panic("") }
func (d *Deduplicator) DoBatch(ctx context.Context, ms []*Message, h BatchHandler) []Result {
	panic("")
}
func (d *Deduplicator) Settle(ctx context.Context, m *Message, h Handler) (Result, error) { panic("") }
func (d *Deduplicator) Wrap(h Handler) func(ctx context.Context, m *Message) error        { panic("") }
func (d *Deduplicator) Shutdown(ctx context.Context) error                                { panic("") }
