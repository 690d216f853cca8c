package redisstore

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// item is one key that a script is to work on, and what the script said.
type item struct {
	script *script
	key    string
	arg    string

	status byte
	record string
	err    error // not nil: unknown whether the script ran
	doubt  error // of an earlier attempt, of which that is unknown
}

func (x *item) answer(status byte, record string) { x.status, x.record, x.err = status, record, nil }

// target is where an item goes.
type target struct {
	client *redis.Client
	asking bool // the server is about to take the slot over
}

// send has the scripts carried out, by all servers at once, and again what a server
// could not answer or does not hold any more. The keys are different ones. Which
// servers have answered is noted before it returns, unless anonymous is set.
func (s *Store) send(ctx context.Context, items []*item, anonymous bool) {
	for attempt := 0; ; attempt++ {
		groups := make(map[target][]*item, 1)
		t := targets{s: s}
		for _, x := range items {
			to, err := t.of(ctx, x)
			if err != nil {
				x.err = err
				continue
			}
			groups[to] = append(groups[to], x)
		}
		var wg sync.WaitGroup
		for to, group := range groups {
			if len(groups) == 1 {
				s.exec(ctx, to, group, anonymous)
				break
			}
			wg.Go(func() { s.exec(ctx, to, group, anonymous) })
		}
		wg.Wait()
		var left []*item
		for _, x := range items {
			if again(x.err) {
				left = append(left, x)
				if !answered(x.err) {
					x.doubt = x.err
				}
			}
		}
		if items = left; items == nil {
			return
		}
		s.nodes.moved(ctx)
		if !pause(ctx, attempt) {
			return
		}
	}
}

// targets finds the servers of items.
type targets struct {
	s     *Store
	asked map[string]*redis.Client
}

func (t *targets) of(ctx context.Context, x *item) (target, error) {
	addr, ask := redis.IsAskError(x.err)
	if ask {
		if _, known := t.asked[addr]; !known {
			if t.asked == nil {
				t.asked = make(map[string]*redis.Client)
			}
			t.asked[addr] = t.s.nodes.at(ctx, addr)
		}
		if c := t.asked[addr]; c != nil {
			return target{c, true}, nil
		}
	}
	c, err := t.s.nodes.master(ctx, x.key)
	return target{client: c}, err
}

// again reports whether a script may be answered if it is sent once more. That is
// safe whatever became of it before: a nonce, a token or what it would replace
// tells.
func again(err error) bool {
	if err == nil || errors.As(err, new(*downError)) || errors.As(err, new(*unfitError)) {
		return false
	}
	return !answered(err) || passing(err)
}

// pause waits before another attempt, if ctx leaves time for it.
func pause(ctx context.Context, attempt int) bool {
	d := min(5*time.Millisecond<<min(attempt, 6), 200*time.Millisecond)
	d = d/2 + rand.N(d/2)
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sendOne runs a script on one key, and returns what it said. Its server is not
// noted.
func (s *Store) sendOne(ctx context.Context, script *script, key, arg string) (string, error) {
	x := &item{script: script, key: key, arg: arg}
	s.send(ctx, []*item{x}, true)
	return x.record, x.err
}
