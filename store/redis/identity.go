package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
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

// identity reads what INFO says about the server.
func identity(info string) (x sighting, err error) {
	x.server.run, x.server.replication = field(info, "run_id"), field(info, "master_replid")
	us, err := strconv.ParseInt(field(info, "server_time_usec"), 10, 64)
	x.at = time.UnixMicro(us).Truncate(time.Millisecond).UTC()
	if err != nil || x.server.run == "" || x.server.replication == "" {
		return x, errors.New("the server does not tell its run_id, master_replid and server_time_usec in INFO: one that hides when it was replaced cannot be trusted")
	}
	return x, nil
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

// note takes in who has answered. A server that was not met before is looked at.
func (s *Store) note(ctx context.Context, c *redis.Client, x sighting) error {
	s.mu.Lock()
	met := s.met[x.server]
	s.mu.Unlock()
	if met {
		s.hear()
		return nil
	}
	if _, err := s.inspect(ctx, c); err != nil {
		return err
	}
	_ = s.meet(ctx, x) // if the ledger cannot be told, Since is raised here
	return nil
}

// greet looks at all servers before the first operation. Of a cluster, some may be
// away, unless all is set.
func (s *Store) greet(ctx context.Context, all bool) error {
	masters, err := s.nodes.masters(ctx)
	if err != nil {
		return fmt.Errorf("redisstore: %w", err)
	}
	seen, errs := make([]sighting, len(masters)), make([]error, len(masters))
	var wg sync.WaitGroup
	for i, c := range masters {
		wg.Go(func() { seen[i], errs[i] = s.inspect(ctx, c) })
	}
	wg.Wait()
	var there []sighting
	for i, err := range errs {
		switch {
		case err == nil:
			there = append(there, seen[i])
		case all || !again(err):
			return fmt.Errorf("redisstore: %w", err)
		}
	}
	if len(there) == 0 {
		return fmt.Errorf("redisstore: %w", errors.Join(errs...))
	}
	return s.meet(ctx, there...)
}

// unfitError says that a server cannot keep records: trying again is of no use.
type unfitError struct{ error }

func (e *unfitError) Unwrap() error { return e.error }

func unfit(format string, args ...any) error { return &unfitError{fmt.Errorf(format, args...)} }

// inspect asks a server what it is, and refuses one that cannot keep records.
func (s *Store) inspect(ctx context.Context, c *redis.Client) (x sighting, err error) {
	addr := address(c)
	info, err := s.bounded(ctx, c).Info(ctx).Result()
	if err != nil {
		return x, explain(err, addr)
	}
	version := field(info, "redis_version")
	if major, _, _ := strings.Cut(version, "."); len(major) == 1 && major < "7" {
		return x, unfit("%s runs Redis %s, and the scripts need Redis 7: upgrade it", addr, version)
	}
	if policy := field(info, "maxmemory_policy"); policy != "noeviction" {
		return x, unfit("%s may evict records, as its maxmemory-policy is %q: run redis-cli CONFIG SET maxmemory-policy noeviction, and write it into its configuration", addr, policy)
	}
	if _, single := s.nodes.(one); single && field(info, "cluster_enabled") == "1" {
		return x, unfit("%s belongs to a Redis Cluster: use a redis.ClusterClient", addr)
	}
	if x, err = identity(info); err != nil {
		return x, unfit("%s: %w", addr, err)
	}
	x.addr = addr
	s.tick(x.at)
	s.o.Logger.Info("a Redis server", "server", addr, "version", version, "durability", durable(ctx, s.bounded(ctx, c), info).String())
	return x, nil
}
