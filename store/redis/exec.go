package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// call is one script for some items.
type call struct {
	script *script
	items  []*item
	cmd    *redis.Cmd
}

func (c *call) command(ctx context.Context) *redis.Cmd {
	args := make([]any, 0, 3+2*len(c.items))
	args = append(args, "evalsha", c.script.sha, len(c.items))
	for _, x := range c.items {
		args = append(args, x.key)
	}
	for _, x := range c.items {
		args = append(args, x.arg)
	}
	return redis.NewCmd(ctx, args...)
}

// calls groups items by their scripts.
func calls(items []*item, perScript int) (all []*call) {
	open := make(map[*script]*call, 2)
	for _, x := range items {
		c := open[x.script]
		if c == nil || len(c.items) == perScript {
			c = &call{script: x.script}
			open[x.script] = c
			all = append(all, c)
		}
		c.items = append(c.items, x)
	}
	return all
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
		var missing []*call
		for _, c := range left {
			switch err := c.cmd.Err(); {
			case redis.HasErrorPrefix(err, "NOSCRIPT") && !load:
				missing = append(missing, c)
			case err != nil:
				fail(c.items, explain(err, server.addr))
			default:
				if err := s.unpack(c); err != nil {
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
func (s *Store) pipeline(ctx context.Context, to target, calls []*call, load bool) (x sighting, err error) {
	addr := to.client.Options().Addr
	if err := ctx.Err(); err != nil {
		return x, err
	}
	if err := s.health.enter(addr); err != nil {
		return x, err
	}
	pipe := s.bounded(ctx, to.client).Pipeline()
	info := pipe.Info(ctx, "server", "replication")
	loaded := make(map[*script]bool)
	for _, c := range calls {
		if load && !loaded[c.script] {
			loaded[c.script] = true
			pipe.ScriptLoad(ctx, c.script.text)
		}
		if to.asking {
			_ = pipe.Process(ctx, redis.NewCmd(ctx, "asking"))
		}
		c.cmd = c.command(ctx)
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
	return x, nil
}

// unpack reads what a script returned.
func (s *Store) unpack(c *call) error {
	if parts, _ := c.cmd.Val().([]any); len(parts) == 3 {
		clock, _ := parts[0].(string)
		status, _ := parts[1].(string)
		records, _ := parts[2].([]any)
		us, err := strconv.ParseInt(clock, 10, 64)
		if err == nil && len(status) == len(c.items) && len(records) == len(c.items) {
			s.tick(time.UnixMicro(us).Truncate(time.Millisecond).UTC())
			for i, x := range c.items {
				x.status, x.err = status[i], nil
				x.record, _ = records[i].(string)
			}
			return nil
		}
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
