package redisstore

import (
	"context"
	"fmt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// batch is the operations of one Apply under way.
type batch struct {
	s       *Store
	ops     []driver.Op
	items   []item
	waiting []int             // operations not sent yet, in order
	sent    []*item           // the present wave
	seen    map[driver.ID]int // in the present wave
}

// pack writes down ops for the scripts.
func (s *Store) pack(ctx context.Context, ops []driver.Op) *batch {
	b := &batch{
		s: s, ops: ops, items: make([]item, len(ops)), waiting: make([]int, 0, len(ops)),
		sent: make([]*item, 0, len(ops)), seen: make(map[driver.ID]int, len(ops)),
	}
	// One string for all of them, cut into pieces.
	size := 0
	for i := range ops {
		size += len(s.o.Prefix) + len(ops[i].ID) + 72 + len(ops[i].Result) + len(ops[i].Note)
	}
	buf := make([]byte, 0, size)
	ends := make([]int, 0, 2*len(ops))
	high := min(driver.Token(s.high.Load()), maxToken-1)
	for i := range ops {
		op := ops[i]
		buf = append(append(buf, s.o.Prefix...), op.ID[:]...)
		ends = append(ends, len(buf))
		op.Floor = max(op.Floor, high)
		if err := fits(op); err != nil {
			b.items[i].err = err
		} else {
			b.waiting = append(b.waiting, i)
			buf = appendOp(buf, op, s.tag(ctx, op.Position.Source))
		}
		ends = append(ends, len(buf))
	}
	text, start := string(buf), 0
	for i := range ops {
		x := &b.items[i]
		x.script = s.lua.settle
		if ops[i].Kind == driver.OpClaim {
			x.script = s.lua.claim
		}
		x.key, x.arg = text[start:ends[2*i]], text[ends[2*i]:ends[2*i+1]]
		start = ends[2*i+1]
	}
	return b
}

// fits returns why an operation cannot be written down.
func fits(op driver.Op) error {
	switch {
	case op.Kind < driver.OpClaim || op.Kind > driver.OpUnpark:
		return fmt.Errorf("operation %d is unknown", op.Kind)
	case len(op.Note) > driver.MaxNote:
		return fmt.Errorf("a note of %d bytes: it may have %d", len(op.Note), driver.MaxNote)
	case (op.Kind == driver.OpClaim || op.Kind == driver.OpUnpark) && op.Floor >= maxToken, op.Token > maxToken:
		return fmt.Errorf("token %d is no token of this store: they end at %d", max(op.Floor, op.Token), maxToken)
	case len(op.Position.Source) > maxSource:
		return fmt.Errorf("the name of its source is %d bytes long: at most %d are kept", len(op.Position.Source), maxSource)
	}
	return nil
}

// apply sends all operations, in waves: those of one wave have different keys. The
// next one on a key waits for the answer of the one before, so that whatever is
// lost on the way and sent again, they act in their order. After one whose state is
// unknown it is not sent at all.
func (b *batch) apply(ctx context.Context) []driver.Reply {
	for len(b.waiting) > 0 {
		b.sent = b.sent[:0]
		clear(b.seen)
		later := b.waiting[:0]
		for _, i := range b.waiting {
			if _, ok := b.seen[b.ops[i].ID]; ok {
				later = append(later, i)
				continue
			}
			b.seen[b.ops[i].ID] = i
			b.sent = append(b.sent, &b.items[i])
		}
		b.s.send(ctx, b.sent, false)
		b.waiting = later[:0]
		for _, i := range later {
			if err := b.items[b.seen[b.ops[i].ID]].err; err != nil {
				b.items[i].err = fmt.Errorf("not sent, as an operation on the same key before it failed: %w", err)
				continue
			}
			b.waiting = append(b.waiting, i)
		}
	}
	replies := make([]driver.Reply, len(b.ops))
	for i := range replies {
		r, err := b.s.result(ctx, &b.items[i], b.ops[i].Result)
		if b.ops[i].Kind == driver.OpRelease && r.Status == driver.StatusLost && err == nil {
			err = b.items[i].doubt // an attempt whose reply was lost may have released it
		}
		if err != nil {
			replies[i].Err = recordFailed(b.ops[i].ID, err)
			continue
		}
		b.s.saw(r.Record.Token)
		replies[i] = r
	}
	return replies
}

// Answers of the scripts.
const (
	answerOK      = 'O'
	answerSettled = 'S' // the record comes without its result, which the caller has
	answerHeld    = 'H'
	answerError   = 'E'
)

func statusOf(answer byte) driver.Status {
	switch answer {
	case 'G':
		return driver.StatusGranted
	case answerHeld:
		return driver.StatusHeld
	case 'D':
		return driver.StatusDone
	case 'P':
		return driver.StatusParked
	case 'C':
		return driver.StatusConflict
	case answerOK, answerSettled:
		return driver.StatusOK
	default:
		return driver.StatusLost
	}
}

// result reads what a script said about a record.
func (s *Store) result(ctx context.Context, x *item, result []byte) (reply driver.Reply, err error) {
	switch {
	case x.err != nil:
		return reply, x.err
	case x.status == answerError:
		return reply, refused(x.record)
	}
	reply.Status = statusOf(x.status)
	reply.Record, err = decode(x.record, func(tag string) string { return s.named(ctx, tag) })
	if x.status == answerSettled && len(result) > 0 {
		reply.Record.Result = append([]byte(nil), result...)
	}
	return reply, err
}
