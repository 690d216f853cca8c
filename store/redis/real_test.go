//go:build real

package redisstore_test

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// TestRealStore holds the store to its contract on a real server: the scripts are
// told the suite's time, years ahead.
func TestRealStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
		s := realStore(t, realClientOf(t, patient.Timeout), &patient)
		ahead := time.Now().AddDate(10, 0, 0).Truncate(time.Second).Sub(clock.Now())
		s.SetClock(clock.Now)
		s.SetTime(clock.Now().Add(ahead))
		clock.OnAdvance(func(now time.Time) { s.SetTime(now.Add(ahead)) })
		return s
	})
}

func TestRealStep(t *testing.T) {
	// What is sent again, because the server is slow, is another operation to Step.
	s := realStore(t, realClientOf(t, patient.Timeout), &patient)
	testStep(t, s, s.SetTime)
}

// realClient connects to the server of REDIS_URL, which is redis://HOST:PORT/DB, to
// the cluster of REDIS_CLUSTER, HOST:PORT,HOST:PORT, or to the master that the
// Sentinels of REDIS_SENTINELS name.
func realClient(t testing.TB) redis.UniversalClient {
	t.Helper()
	return realClientOf(t, 0)
}

// realClientOf is realClient with a client that waits so long for an answer.
func realClientOf(t testing.TB, wait time.Duration) redis.UniversalClient {
	t.Helper()
	var client redis.UniversalClient
	switch url, nodes, sentinels := os.Getenv("REDIS_URL"), os.Getenv("REDIS_CLUSTER"), os.Getenv("REDIS_SENTINELS"); {
	case sentinels != "":
		client = redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "main", SentinelAddrs: strings.Split(sentinels, ","), ReadTimeout: wait})
	case nodes != "":
		client = redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(nodes, ","), ReadTimeout: wait})
	case url != "":
		o, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		o.ReadTimeout = wait
		client = redis.NewClient(o)
	case os.Getenv("CI") == "true":
		t.Fatal("none of REDIS_URL, REDIS_CLUSTER and REDIS_SENTINELS is set: CI tests against real servers")
	default:
		t.Skip("none of REDIS_URL, REDIS_CLUSTER and REDIS_SENTINELS is set")
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// realStore returns a store of its own, whose keys go with the test.
func realStore(t testing.TB, client redis.UniversalClient, o *redisstore.Options) *redisstore.Store {
	t.Helper()
	var options redisstore.Options
	if o != nil {
		options = *o
	}
	if options.Prefix == "" {
		options.Prefix = "test-" + rand.Text()[:8] + ":"
	}
	s, err := redisstore.New(client, &options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sweep(t, client, options.Prefix) })
	return s
}

func sweep(t testing.TB, client redis.UniversalClient, prefix string) {
	each := func(ctx context.Context, c *redis.Client) error {
		for cursor := uint64(0); ; {
			keys, next, err := c.Scan(ctx, cursor, prefix+"*", 1000).Result()
			if err != nil {
				return err
			}
			// Together: servers that sync each write would take minutes.
			_, err = c.Pipelined(ctx, func(p redis.Pipeliner) error {
				for _, key := range keys {
					p.Unlink(ctx, key)
				}
				return nil
			})
			if cursor = next; cursor == 0 || err != nil {
				return err
			}
		}
	}
	var err error
	if c, ok := client.(*redis.ClusterClient); ok {
		err = c.ForEachMaster(context.Background(), each)
	} else {
		err = each(context.Background(), client.(*redis.Client))
	}
	if err != nil {
		t.Errorf("cleaning up: %v", err)
	}
}
