package redisstore_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// TestRefused: a server that cannot keep records is refused, with what to do.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*redistest.Server)
		words  []string
	}{
		"Redis 6":              {func(s *redistest.Server) { s.Set("redis_version", "6.2.14") }, []string{"6.2.14", "upgrade"}},
		"evicting":             {func(s *redistest.Server) { s.Set("maxmemory_policy", "allkeys-lru") }, []string{"allkeys-lru", "CONFIG SET maxmemory-policy noeviction"}},
		"of a cluster":         {func(s *redistest.Server) { s.Set("cluster_enabled", "1") }, []string{"redis.ClusterClient"}},
		"hidden":               {func(s *redistest.Server) { s.Set("run_id", "") }, []string{"run_id"}},
		"wrong password":       {func(s *redistest.Server) { s.RequireAuth("secret") }, []string{"NOAUTH", "password"}},
		"foreign ledger":       {func(s *redistest.Server) { _ = s.Miniredis.Set("oq:store", "hello") }, []string{"oq:store", "Prefix"}},
		"ledger of a new type": {func(s *redistest.Server) { _, _ = s.Lpush("oq:store", "x") }, []string{"oq:store", "WRONGTYPE"}},
		"newer ledger":         {func(s *redistest.Server) { _ = s.Miniredis.Set("oq:store", `{"version":2}`) }, []string{"version 2", "upgrade"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Run(t)
			c.change(server)
			s := open(t, server, nil)
			wants(t, "Check", s.Check(t.Context()), c.words...)
			_, err := s.Apply(t.Context(), []driver.Op{claim("a", 1)})
			wants(t, "Apply", err, c.words...)
			_, err = s.Vouch(t.Context())
			wants(t, "Vouch", err, c.words...)
		})
	}
}

func TestAddress(t *testing.T) {
	for want, client := range map[string]*redis.Client{
		"127.0.0.1:1":           redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}),
		"the Sentinels' master": redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: []string{"127.0.0.1:1"}}),
	} {
		t.Cleanup(func() { _ = client.Close() })
		if got := redisstore.Address(client); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestForeignRecords: what another program wrote under a key of ours fails the
// operations on that key alone.
func TestForeignRecords(t *testing.T) {
	server := redistest.Run(t)
	s := open(t, server, nil)
	typed, newer, fine := claim("typed", 1), claim("newer", 1), claim("fine", 1)
	_, _ = server.Lpush("oq:"+string(typed.ID[:]), "x")
	_ = server.Miniredis.Set("oq:"+string(newer.ID[:]), "\x03 what comes in version 3")
	for _, ops := range [][]driver.Op{
		{typed, fine, newer},
		{complete(typed, 1), complete(fine, 1), complete(newer, 1)},
	} {
		replies, err := s.Apply(t.Context(), ops)
		if err != nil || replies[1].Err != nil {
			t.Fatalf("%v: got errors %v, %v for the others", ops[0].Kind, err, replies[1].Err)
		}
		wants(t, "another type", replies[0].Err, typed.ID.String(), "another type", "Prefix")
		wants(t, "newer version", replies[2].Err, newer.ID.String(), "version 3", "upgrade")
	}
	wants(t, "Forget", s.Forget(t.Context(), []driver.ID{typed.ID}), "another type")
	_, err := s.Lookup(t.Context(), newer.ID)
	wants(t, "Lookup", err, "version 3")
}
