package redisstore_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/storetest"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) dedup.Store {
		server := redistest.Run(t)
		server.At(clock.Now())
		clock.OnAdvance(server.At)
		client := redis.NewClient(&redis.Options{Addr: server.Addr()})
		t.Cleanup(func() { _ = client.Close() })
		s, err := redisstore.New(client, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.SetClock(clock.Now)
		return s
	})
}
