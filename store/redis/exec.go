package redisstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// call is one script for some items.
type call struct {
	script *script
	items  []*item
	cmd    *redis.Cmd
}

// calls groups items by their scripts. It sorts them.
func calls(items []*item, perScript int) []call {
	slices.SortStableFunc(items, func(a, b *item) int { return strings.Compare(a.script.sha, b.script.sha) })
	all := make([]call, 0, 2+len(items)/perScript)
	for len(items) > 0 {
		n := 1
		for n < min(len(items), perScript) && items[n].script == items[0].script {
			n++
		}
		all = append(all, call{script: items[0].script, items: items[:n]})
		items = items[n:]
	}
	return all
}

// commands makes the commands of calls.
func commands(ctx context.Context, calls []call) {
	size := 0
	for i := range calls {
		size += 3 + 2*len(calls[i].items)
	}
	args := make([]any, 0, size)
	for i := range calls {
		c := &calls[i]
		start := len(args)
		args = append(args, "evalsha", c.script.name, len(c.items))
		for _, x := range c.items {
			args = append(args, x.key)
		}
		for _, x := range c.items {
			args = append(args, x.arg)
		}
		c.cmd = redis.NewCmd(ctx, args[start:len(args):len(args)]...)
	}
}

// exec carries out items on one server.
func (s *Store) exec(ctx context.Context, to target, items []*item, anonymous bool) {
	fail := func(items []*item, err error) {
		for _, x := range items {
			x.err = err
		}
	}
	left := calls(items, s.nodes.perScript())
	for _, load := range []bool{false, true} {
		server, err := s.pipeline(ctx, to, left, load)
		if err == nil && !anonymous {
			err = s.note(ctx, to.client, server)
		}
		if err != nil {
			fail(items, err)
			return
		}
		var missing []call
		for _, c := range left {
			switch err := c.cmd.Err(); {
			case redis.HasErrorPrefix(err, "NOSCRIPT") && !load:
				missing = append(missing, c)
			case err != nil:
				fail(c.items, explain(err, server.addr))
			default:
				if err := c.unpack(); err != nil {
					fail(c.items, fmt.Errorf("%s: %w", server.addr, err))
				}
			}
		}
		if left = missing; left == nil {
			return
		}
	}
}

// pipeline sends calls once, after the scripts that they need if load is set. The
// same pipeline asks the server who it is: only so it is known which one has
// answered, whatever connection was used. The error says that none did.
func (s *Store) pipeline(ctx context.Context, to target, calls []call, load bool) (x sighting, err error) {
	addr := address(to.client)
	if err := ctx.Err(); err != nil {
		return x, err
	}
	if err := s.health.enter(addr); err != nil {
		return x, err
	}
	pipe := s.bounded(ctx, to.client).Pipeline()
	info := pipe.Info(ctx, "server", "replication")
	commands(ctx, calls)
	for i, c := range calls {
		if load && (i == 0 || calls[i-1].script != c.script) {
			pipe.ScriptLoad(ctx, c.script.text)
		}
		if to.asking {
			_ = pipe.Process(ctx, redis.NewCmd(ctx, "asking"))
		}
		_ = pipe.Process(ctx, c.cmd)
	}
	_, err = pipe.Exec(ctx)
	// What the first command meets all others do, such as a wrong password.
	if err == nil || info.Val() != "" {
		err = info.Err()
	}
	if err != nil {
		if answered(err) && !passing(err) {
			s.health.leave(addr, nil)
		} else {
			s.health.leave(addr, err)
		}
		return x, explain(err, addr)
	}
	s.health.leave(addr, nil)
	if x, err = identity(info.Val()); err != nil {
		return x, fmt.Errorf("%s: %w", addr, err)
	}
	x.addr = addr
	s.tick(x.at)
	return x, nil
}

// unpack reads what a script returned: for one key a byte and the record, for more
// of them all the bytes and an array of the records.
func (c *call) unpack() error {
	switch v := c.cmd.Val().(type) {
	case string:
		if len(c.items) == 1 && v != "" {
			c.items[0].answer(v[0], v[1:])
			return nil
		}
	case []any:
		if len(v) != 2 {
			break
		}
		status, _ := v[0].(string)
		records, _ := v[1].([]any)
		if len(status) != len(c.items) || len(records) != len(c.items) {
			break
		}
		for i, x := range c.items {
			record, _ := records[i].(string)
			x.answer(status[i], record)
		}
		return nil
	}
	return errors.New("a script was answered in another form")
}

// bounded returns a client that gives up reading before ctx ends, and in time for
// one more try: by default go-redis does not look at deadlines while it reads.
func (s *Store) bounded(ctx context.Context, c *redis.Client) *redis.Client {
	end, ok := ctx.Deadline()
	if !ok {
		return c
	}
	most := max(time.Until(end)/2, minTimeout)
	if read := c.Options().ReadTimeout; read > 0 && read <= most {
		return c
	}
	return c.WithTimeout(most)
}

// answered reports whether err is a server's answer.
func answered(err error) bool {
	var e redis.Error
	return errors.As(err, &e)
}

// passing reports whether an answer says that the server will serve, or another
// one will in its place, if it is asked again.
func passing(err error) bool {
	return redis.IsLoadingError(err) || redis.IsReadOnlyError(err) || redis.IsClusterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsMasterDownError(err) || redis.IsMaxClientsError(err) || misplaced(err)
}

// misplaced reports whether another server of the cluster has the key.
func misplaced(err error) bool {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask
}
