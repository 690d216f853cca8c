package redisstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// incarnation is one life of a server as a master: another run of its process, or
// another history of its data, is another one.
type incarnation struct{ run, replication string }

func (i incarnation) String() string { return i.run + "/" + i.replication }

// sighting is an incarnation that answered at a time of its own clock.
type sighting struct {
	server incarnation
	at     time.Time
	addr   string
}

// identity reads what INFO says about the server. ok is false if that is nothing.
func identity(info string) (x sighting, ok bool) {
	x.server.run, x.server.replication = field(info, "run_id"), field(info, "master_replid")
	us, err := strconv.ParseInt(field(info, "server_time_usec"), 10, 64)
	x.at = time.UnixMicro(us).Truncate(time.Millisecond).UTC()
	return x, err == nil && x.server.run != "" && x.server.replication != ""
}

// field returns the value of a line of INFO; "" if there is none.
func field(info, name string) string {
	for at := 0; ; {
		i := strings.Index(info[at:], name)
		if i < 0 {
			return ""
		}
		i += at
		at = i + len(name)
		if (i == 0 || info[i-1] == '\n') && at < len(info) && info[at] == ':' {
			value, _, _ := strings.Cut(info[at+1:], "\r\n")
			return value
		}
	}
}

// greet looks at all servers before the first operation.
func (s *Store) greet(ctx context.Context) error {
	var seen []sighting
	err := s.nodes.each(ctx, func(ctx context.Context, c *redis.Client) error {
		x, err := s.inspect(ctx, c)
		if err == nil {
			s.mu.Lock()
			seen = append(seen, x)
			s.mu.Unlock()
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.meet(ctx, seen...)
}

// inspect asks a server what it is, and refuses one that cannot keep records.
func (s *Store) inspect(ctx context.Context, c *redis.Client) (sighting, error) {
	addr := c.Options().Addr
	info, err := c.Info(ctx).Result()
	if err != nil {
		return sighting{}, fmt.Errorf("redisstore: %s: %w", addr, explain(err))
	}
	version := field(info, "redis_version")
	if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "7" {
		return sighting{}, fmt.Errorf("redisstore: %s runs Redis %s, and its scripts need Redis 7: upgrade it", addr, version)
	}
	if policy := field(info, "maxmemory_policy"); policy != "noeviction" {
		return sighting{}, fmt.Errorf("redisstore: %s may evict records, as its maxmemory-policy is %q: run redis-cli CONFIG SET maxmemory-policy noeviction, and write it into its configuration", addr, policy)
	}
	x, ok := identity(info)
	if !ok {
		return x, fmt.Errorf("redisstore: %s does not tell its run_id and master_replid in INFO: a server that hides when it was replaced cannot be trusted", addr)
	}
	x.addr = addr
	return x, nil
}
