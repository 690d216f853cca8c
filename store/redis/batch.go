package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
)

// batch is the operations of one Apply under way.
type batch struct {
	s       *Store
	ops     []dedup.Op
	keys    []string // of the records
	args    []string // what the scripts read
	replies []dedup.Reply

	waiting []int // not sent yet, in order
	sending []int // of the present wave
	seen    map[dedup.ID]int
}

// pack writes down ops for the scripts.
func (s *Store) pack(ctx context.Context, ops []dedup.Op) *batch {
	b := &batch{
		s: s, ops: ops, keys: make([]string, len(ops)), args: make([]string, len(ops)),
		replies: make([]dedup.Reply, len(ops)), waiting: make([]int, 0, len(ops)), seen: make(map[dedup.ID]int, len(ops)),
	}
	// One string for all of them, cut into pieces.
	var buf []byte
	ends := make([]int, 0, 2*len(ops))
	floor := dedup.Token(s.high.Load())
	for i, op := range ops {
		buf = append(append(buf, s.o.Prefix...), op.ID[:]...)
		ends = append(ends, len(buf))
		op.Floor = max(op.Floor, min(floor, maxToken-1))
		switch {
		case op.Kind == dedup.OpClaim && op.Floor >= maxToken, op.Token > maxToken:
			b.replies[i].Err = s.failed(op.ID, fmt.Errorf("token %d is no token of this store: they end at %d", max(op.Floor, op.Token), maxToken))
		default:
			b.waiting = append(b.waiting, i)
			buf = appendOp(buf, op, s.tag(ctx, op.Position.Source))
		}
		ends = append(ends, len(buf))
	}
	text, start := string(buf), 0
	for i := range ops {
		b.keys[i], b.args[i] = text[start:ends[2*i]], text[ends[2*i]:ends[2*i+1]]
		start = ends[2*i+1]
	}
	return b
}

// wave takes what may be sent at once: operations on different keys. The next one
// on a key waits for the answer of the one before, so that whatever is lost on the
// way and sent again, they act in their order. After one whose state is unknown it
// is not sent at all.
func (b *batch) wave() bool {
	b.sending = b.sending[:0]
	clear(b.seen)
	later := b.waiting[:0]
	for _, i := range b.waiting {
		id := b.ops[i].ID
		if _, ok := b.seen[id]; ok {
			later = append(later, i)
			continue
		}
		b.seen[id] = i
		b.sending = append(b.sending, i)
	}
	b.waiting = later
	return len(b.sending) > 0
}

// call is one script for some keys.
type call struct {
	script *script
	keys   []string
	args   []string
	at     []int // in the batch
	cmd    *redis.Cmd
}

// send sends the wave, to all servers at once.
func (b *batch) send(ctx context.Context) {
	groups := make(map[*redis.Client][]int, 1)
	for _, i := range b.sending {
		c, err := b.s.nodes.master(ctx, b.keys[i])
		if err != nil {
			b.fail(i, err)
			continue
		}
		groups[c] = append(groups[c], i)
	}
	var wg sync.WaitGroup
	for c, at := range groups {
		if len(groups) == 1 {
			b.sendTo(ctx, c, at)
			break
		}
		wg.Go(func() { b.sendTo(ctx, c, at) })
	}
	wg.Wait()
	later := b.waiting[:0]
	for _, i := range b.waiting {
		if before, ok := b.seen[b.ops[i].ID]; ok && b.replies[before].Err != nil {
			b.replies[i].Err = fmt.Errorf("not sent, as an operation on the same key before it has failed: %w", b.replies[before].Err)
			continue
		}
		later = append(later, i)
	}
	b.waiting = later
}

func (b *batch) fail(i int, err error) {
	b.replies[i] = dedup.Reply{Err: b.s.failed(b.ops[i].ID, err)}
}

// sendTo sends operations to one server.
func (b *batch) sendTo(ctx context.Context, c *redis.Client, at []int) {
	calls := b.calls(b.s.lua.settle, at, func(k dedup.OpKind) bool { return k != dedup.OpClaim })
	calls = append(calls, b.calls(b.s.lua.claim, at, func(k dedup.OpKind) bool { return k == dedup.OpClaim })...)
	if err := b.s.exec(ctx, c, calls); err != nil {
		for _, i := range at {
			b.fail(i, err)
		}
		return
	}
	for _, call := range calls {
		b.answer(ctx, call)
	}
}

// calls makes the calls of one script.
func (b *batch) calls(script *script, at []int, takes func(dedup.OpKind) bool) (calls []*call) {
	most := b.s.nodes.perScript()
	var last *call
	for _, i := range at {
		if !takes(b.ops[i].Kind) {
			continue
		}
		if last == nil || len(last.keys) == most {
			last = &call{script: script}
			calls = append(calls, last)
		}
		last.keys, last.args, last.at = append(last.keys, b.keys[i]), append(last.args, b.args[i]), append(last.at, i)
	}
	return calls
}

// answer takes the reply of a call apart.
func (b *batch) answer(ctx context.Context, c *call) {
	_, status, records, err := b.s.reply(c)
	if err != nil {
		for _, i := range c.at {
			b.fail(i, err)
		}
		return
	}
	for n, i := range c.at {
		reply, err := b.s.result(ctx, status[n], records[n], b.ops[i])
		if err != nil {
			b.fail(i, err)
			continue
		}
		b.s.saw(reply.Record.Token)
		b.replies[i] = reply
	}
}

// reply reads what a script returned.
func (s *Store) reply(c *call) (now time.Time, status string, records []string, err error) {
	if err := c.cmd.Err(); err != nil {
		return now, "", nil, explain(err)
	}
	parts, _ := c.cmd.Val().([]any)
	if len(parts) == 3 {
		time1, _ := parts[0].(string)
		us, err := strconv.ParseInt(time1, 10, 64)
		status, _ = parts[1].(string)
		list, _ := parts[2].([]any)
		if err == nil && len(status) == len(c.keys) && len(list) == len(c.keys) {
			records = make([]string, len(list))
			for i := range list {
				records[i], _ = list[i].(string)
			}
			now = time.UnixMicro(us).Truncate(time.Millisecond).UTC()
			s.tick(now)
			return now, status, records, nil
		}
	}
	return now, "", nil, fmt.Errorf("the server gave an answer of another form to a script")
}

var statuses = map[byte]dedup.Status{
	'G': dedup.StatusGranted, 'H': dedup.StatusHeld, 'D': dedup.StatusDone, 'P': dedup.StatusParked,
	'C': dedup.StatusConflict, 'O': dedup.StatusOK, 'S': dedup.StatusOK, 'L': dedup.StatusLost,
}

// result reads the reply to one operation.
func (s *Store) result(ctx context.Context, status byte, record string, op dedup.Op) (reply dedup.Reply, err error) {
	if status == 'E' {
		return reply, refused(record)
	}
	reply.Status = statuses[status]
	if reply.Record, err = decode(record, func(tag string) string { return s.named(ctx, tag) }); err != nil {
		return dedup.Reply{}, err
	}
	if status == 'S' && len(op.Result) > 0 {
		reply.Record.Result = append([]byte(nil), op.Result...)
	}
	return reply, nil
}

// single runs a script on one key that is no record.
func (s *Store) single(ctx context.Context, script *script, key string, args ...string) (time.Time, string, error) {
	c, err := s.nodes.master(ctx, key)
	if err != nil {
		return time.Time{}, "", fmt.Errorf("redisstore: key %s: %w", key, err)
	}
	alone := &call{script: script, keys: []string{key}, args: args}
	if err = s.pipeline(ctx, c, []*call{alone}, nil); err == nil {
		var now time.Time
		var records []string
		if now, _, records, err = s.reply(alone); err == nil {
			return now, records[0], nil
		}
	}
	return time.Time{}, "", fmt.Errorf("redisstore: key %s: %w", key, err)
}
