package redisstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/go-redis/v9"
)

// nodes knows which server holds a key.
type nodes interface {
	// master returns a client of the server that holds the key.
	master(ctx context.Context, key string) (*redis.Client, error)
	// masters returns clients of all servers that hold keys.
	masters(ctx context.Context) ([]*redis.Client, error)
	// at returns a client of the server at the address; nil if none is known.
	at(ctx context.Context, addr string) *redis.Client
	// perScript is how many keys a script may take.
	perScript() int
	// moved says that a server does not hold what it should.
	moved(ctx context.Context)
}

func newNodes(client redis.UniversalClient) (nodes, error) {
	switch c := client.(type) {
	case *redis.Client:
		if c != nil {
			return one{c}, nil
		}
	case *redis.ClusterClient:
		if c != nil {
			return cluster{c}, nil
		}
	case nil:
	default:
		return nil, fmt.Errorf("redisstore: a %T is no client of one server or of a Redis Cluster: give a *redis.Client or a *redis.ClusterClient", client)
	}
	return nil, errors.New("redisstore: New needs a client")
}

// address says which server c is for, in errors and logs. Of one that Sentinels find
// go-redis does not tell the address, and says "FailoverClient" in its place.
func address(c *redis.Client) string {
	if addr := c.Options().Addr; addr != "FailoverClient" {
		return addr
	}
	return "the Sentinels' master"
}

// maxScript bounds the keys of one script: while it runs, the server does nothing
// else.
const maxScript = 256

// one is a server without Cluster, perhaps found by way of Sentinel.
type one struct{ client *redis.Client }

func (n one) master(context.Context, string) (*redis.Client, error) { return n.client, nil }
func (n one) at(context.Context, string) *redis.Client              { return nil }
func (n one) perScript() int                                        { return maxScript }
func (n one) moved(context.Context)                                 {}
func (n one) masters(context.Context) ([]*redis.Client, error) {
	return []*redis.Client{n.client}, nil
}

// cluster is a Redis Cluster: the keys of a script must share a slot, and ours
// are spread.
type cluster struct{ client *redis.ClusterClient }

func (n cluster) master(ctx context.Context, key string) (*redis.Client, error) {
	return n.client.MasterForKey(ctx, key)
}

func (n cluster) masters(ctx context.Context) (all []*redis.Client, err error) {
	var mu sync.Mutex
	err = n.client.ForEachMaster(ctx, func(_ context.Context, c *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
		return nil
	})
	return all, err
}

func (n cluster) at(ctx context.Context, addr string) *redis.Client {
	all, _ := n.masters(ctx)
	for _, c := range all {
		if c.Options().Addr == addr {
			return c
		}
	}
	return nil
}

func (n cluster) perScript() int            { return 1 }
func (n cluster) moved(ctx context.Context) { n.client.ReloadState(ctx) }
