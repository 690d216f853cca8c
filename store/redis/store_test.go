package redisstore_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/dedup/storetest"
	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// patient options are for servers that are slow because the machine is.
var patient = redisstore.Options{Timeout: 5 * time.Minute}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
		server := redistest.Run(t)
		server.At(clock.Now())
		clock.OnAdvance(server.At)
		s := open(t, server, nil)
		s.SetClock(clock.Now)
		return s
	})
}

// TestClusterStore: on a cluster each script takes one key, and each record has the
// server of its slot. Here that is one server for all of them.
func TestClusterStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock storetest.Clock) driver.Store {
		server := redistest.Run(t)
		server.At(clock.Now())
		clock.OnAdvance(server.At)
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{server.Addr()}, ReadTimeout: -1})
		t.Cleanup(func() { _ = client.Close() })
		s, err := redisstore.New(client, &patient)
		if err != nil {
			t.Fatal(err)
		}
		s.SetClock(clock.Now)
		return s
	})
}

// TestStep: the scripts do what driver.Step does, also when the clock goes back.
func TestStep(t *testing.T) {
	s := open(t, redistest.Run(t), nil)
	testStep(t, s, s.SetTime)
}
