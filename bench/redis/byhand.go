package redisbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/bench/harness"
	"github.com/oncequeue/oncequeue/bench/work"
)

// setNX marks a message as seen before its work is done, which is lost if that fails.
func setNX(ctx context.Context, r *harness.Round, s *server) (err error) {
	const callers = 64
	return byHand(ctx, r, s, callers, func(client redis.UniversalClient, key string) (bool, error) {
		err := client.SetArgs(ctx, key, "1", redis.SetArgs{Mode: "NX", TTL: work.TTL}).Err()
		if errors.Is(err, redis.Nil) {
			return false, nil
		}
		return err == nil, err
	})
}

// single claims and records. A holder whose lease ran out overwrites the record of
// the next holder.
func single(ctx context.Context, r *harness.Round, s *server) error {
	const owner, done = "01234567-89ab-cdef-0123-456789abcdef", "done"
	return byHand(ctx, r, s, 1, func(client redis.UniversalClient, key string) (bool, error) {
		before, err := client.SetArgs(ctx, key, owner, redis.SetArgs{Mode: "NX", Get: true, TTL: work.Lease}).Result()
		switch {
		case err == nil && before == done:
			return false, nil
		case err == nil:
			return false, fmt.Errorf("the key is claimed by %s", before)
		case !errors.Is(err, redis.Nil):
			return false, err
		}
		return true, client.SetArgs(ctx, key, done, redis.SetArgs{Mode: "XX", TTL: work.TTL}).Err()
	})
}

// byHand calls fn for each message, which says whether it was new.
func byHand(ctx context.Context, r *harness.Round, s *server, callers int, fn func(redis.UniversalClient, string) (bool, error)) (err error) {
	client := s.client(callers)
	defer func() { err = errors.Join(err, client.Close()) }()
	b := work.New(1).Next(r.Messages)
	err = s.timed(ctx, r, func() error {
		return b.Share(callers, 1, func(i, _ int) error {
			fresh, err := fn(client, b.Keys[i].String())
			if fresh {
				b.Handled(1)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	return b.Check()
}

// benchmark is redis-benchmark, with keys as long as ours. It tells its rate itself:
// its start takes no part in it.
func benchmark(ctx context.Context, r *harness.Round, s *server) error {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "-c", "1", "-P", "64", "-n", strconv.Itoa(r.Messages),
		"-r", "1000000000", "--csv", "SET", "01234567-89ab-cdef-0123-__rand_int__", "0123456789abcdef", "NX", "GET", "PX", strconv.FormatInt(work.TTL.Milliseconds(), 10))
	var out []byte
	if err := s.timed(ctx, r, func() (err error) { out, err = cmd.CombinedOutput(); return err }); err != nil {
		return fmt.Errorf("redis-benchmark: %w: %s", err, out)
	}
	// "test","rps", ... and a line of values.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	_, rest, _ := strings.Cut(lines[len(lines)-1], `","`)
	rate, _, _ := strings.Cut(rest, `"`)
	perSecond, err := strconv.ParseFloat(rate, 64)
	if err != nil {
		return fmt.Errorf("redis-benchmark: %q: %w", lines, err)
	}
	r.Set(harness.Rate, perSecond)
	return nil
}
