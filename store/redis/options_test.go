package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/internal/redistest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

func TestNewRefuses(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	ring := redis.NewRing(&redis.RingOptions{})
	t.Cleanup(func() { _ = ring.Close() })
	for name, c := range map[string]struct {
		client redis.UniversalClient
		o      redisstore.Options
		words  string
	}{
		"no client":      {nil, redisstore.Options{}, "needs a client"},
		"nil client":     {(*redis.Client)(nil), redisstore.Options{}, "needs a client"},
		"ring":           {ring, redisstore.Options{}, "*redis.Ring"},
		"braces":         {client, redisstore.Options{Prefix: "{a}"}, `"{a}"`},
		"pattern":        {client, redisstore.Options{Prefix: "a*"}, `"a*"`},
		"short timeout":  {client, redisstore.Options{Timeout: time.Millisecond}, "1ms"},
		"applies":        {client, redisstore.Options{Applies: -1}, "-1"},
		"vouch from now": {client, redisstore.Options{VouchFrom: time.Now().Add(time.Hour)}, "future"},
	} {
		if _, err := redisstore.New(c.client, &c.o); err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: got error %v, want one with %q", name, err, c.words)
		}
	}
}

func TestDefaults(t *testing.T) {
	server := redistest.Run(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { _ = client.Close() })
	s, err := redisstore.New(client, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Applies(); got != 4 {
		t.Errorf("Applies: got %d, want 4", got)
	}
	if got := s.Timeout(); got != 2*time.Second {
		t.Errorf("Timeout: got %v, want 2s", got)
	}
	granted(t, open(t, server, nil), claim("a", 1))
	for _, key := range server.Keys() {
		if !strings.HasPrefix(key, "oq:") {
			t.Errorf("key %q: want the prefix oq:", key)
		}
	}
	if !vouch(t, open(t, server, nil)).Shared {
		t.Errorf("Vouch: got not shared, want shared")
	}
}
