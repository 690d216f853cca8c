//go:build real

package redisstore_test

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// TestRealACL: the user of the package documentation can do all that the store
// does, and nothing with another prefix.
func TestRealACL(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(doc), "ACL SETUSER dedup")
	rest, _, _ = strings.Cut(rest, "\npackage ")
	if !ok {
		t.Fatal("doc.go names no ACL SETUSER")
	}
	user, prefix := "test-"+rand.Text()[:8], "test-"+rand.Text()[:8]+":"
	rules := strings.NewReplacer("//", "", ">PASSWORD", ">secret", "~oq:*", "~"+prefix+"*").Replace(rest)
	args := []any{"acl", "setuser", user}
	for _, rule := range strings.Fields(rules) {
		args = append(args, rule)
	}
	admin := realClient(t)
	each := func(f func(context.Context, *redis.Client) error) error {
		if c, ok := admin.(*redis.ClusterClient); ok {
			return c.ForEachShard(context.Background(), f)
		}
		return f(context.Background(), admin.(*redis.Client))
	}
	if err := each(func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, args...).Err() }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = each(func(ctx context.Context, c *redis.Client) error { return c.Do(ctx, "acl", "deluser", user).Err() })
		sweep(t, admin, prefix)
	})
	var client redis.UniversalClient
	switch c := admin.(type) {
	case *redis.ClusterClient:
		client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: c.Options().Addrs, Username: user, Password: "secret"})
	case *redis.Client:
		client = redis.NewClient(&redis.Options{Addr: c.Options().Addr, DB: c.Options().DB, Username: user, Password: "secret"})
	}
	t.Cleanup(func() { _ = client.Close() })
	s, err := redisstore.New(client, &redisstore.Options{Prefix: prefix, Timeout: patient.Timeout})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	op := claim("a", 1)
	r := granted(t, s, op)
	apply(t, s, driver.Op{Kind: driver.OpExtend, ID: op.ID, Token: r.Token, Lease: op.Lease, TTL: op.TTL})
	apply(t, s, complete(op, r.Token))
	n := 0
	for _, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("Records: got %d, want 1", n)
	}
	stats, err := s.Stats(t.Context())
	if err != nil || !strings.Contains(stats.Durability, "appendfsync=") {
		t.Errorf("Stats: got %+v, %v, want what an answer survives", stats, err)
	}
	if err := s.Forget(t.Context(), []driver.ID{op.ID}); err != nil {
		t.Error(err)
	}
	other, err := redisstore.New(client, &redisstore.Options{Prefix: "another:", Timeout: patient.Timeout})
	if err != nil {
		t.Fatal(err)
	}
	wants(t, "another prefix", other.Check(t.Context()), "package documentation")
}
