package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// exec carries out calls on one server. The same pipeline asks the server who it
// is: only so it is known which one has answered.
func (s *Store) exec(ctx context.Context, c *redis.Client, calls []*call) error {
	info := redis.NewStringCmd(ctx, "info", "server", "replication")
	if err := s.pipeline(ctx, c, calls, info); err != nil {
		return err
	}
	if err := info.Err(); err != nil {
		return explain(err)
	}
	x, ok := identity(info.Val())
	if !ok {
		return errors.New("the server does not say who it is")
	}
	s.mu.Lock()
	met := s.met[x.server]
	s.mu.Unlock()
	if met {
		return nil
	}
	if _, err := s.inspect(ctx, c); err != nil {
		return err
	}
	x.addr = c.Options().Addr
	_ = s.meet(ctx, x) // if the ledger cannot be told, Since is raised here
	return nil
}

// pipeline sends calls, and those again whose script the server does not have. It
// returns an error if none was answered; else each call has its own.
func (s *Store) pipeline(ctx context.Context, c *redis.Client, calls []*call, info *redis.StringCmd) error {
	send := func(calls []*call, info *redis.StringCmd, load bool) error {
		pipe := c.Pipeline()
		if info != nil {
			_ = pipe.Process(ctx, info)
		}
		loaded := make(map[*script]bool)
		for _, call := range calls {
			if load && !loaded[call.script] {
				loaded[call.script] = true
				pipe.ScriptLoad(ctx, call.script.text)
			}
			args := make([]any, 0, 3+len(call.keys)+len(call.args))
			args = append(args, "evalsha", call.script.sha, len(call.keys))
			for _, k := range call.keys {
				args = append(args, k)
			}
			for _, a := range call.args {
				args = append(args, a)
			}
			call.cmd = redis.NewCmd(ctx, args...)
			_ = pipe.Process(ctx, call.cmd)
		}
		_, err := pipe.Exec(ctx)
		if err != nil && !answered(err) {
			return err
		}
		return nil
	}
	if err := send(calls, info, false); err != nil {
		return err
	}
	var missing []*call
	for _, call := range calls {
		if redis.HasErrorPrefix(call.cmd.Err(), "NOSCRIPT") {
			missing = append(missing, call)
		}
	}
	if missing == nil {
		return nil
	}
	if info != nil {
		info = redis.NewStringCmd(ctx, info.Args()...)
	}
	return send(missing, info, true)
}

// answered reports whether err is a server's answer.
func answered(err error) bool {
	var e redis.Error
	return errors.As(err, &e)
}

// explain says what to do about an answer of the server.
func explain(err error) error {
	return err
}

// refused says why a script did not touch a record.
func refused(why string) error {
	if version, ok := strings.CutPrefix(why, "RECORD "); ok {
		return fmt.Errorf("it has version %s of the format, and this program knows %d: upgrade the program, or give the store a Prefix of its own if another program wrote it", version, formatVersion)
	}
	if strings.HasPrefix(why, "WRONGTYPE") {
		return errors.New("its key holds another type of value, written by another program: give the store a Prefix of its own")
	}
	return errors.New(why)
}
