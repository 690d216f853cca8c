package redisstore_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup"
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

// Every number is refused with a line that names it, or a store works with it.
func TestExtremeOptions(t *testing.T) {
	server := redistest.Run(t)
	for _, n := range []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, int64(10 * time.Millisecond), math.MaxInt64 - 1, math.MaxInt64} {
		for name, o := range map[string]*redisstore.Options{"Timeout": {Timeout: time.Duration(n)}, "Applies": {Applies: int(n)}} {
			client := redis.NewClient(&redis.Options{Addr: server.Addr()})
			t.Cleanup(func() { _ = client.Close() })
			s, err := redisstore.New(client, o)
			if err != nil {
				if !strings.HasPrefix(err.Error(), "redisstore: "+name) {
					t.Errorf("%s=%d: got error %v, which does not name it", name, n, err)
				}
				continue
			}
			if s.Applies() < 1 {
				t.Errorf("%s=%d: got %d batches at once", name, n, s.Applies())
			}
			if name == "Timeout" && n == int64(10*time.Millisecond) {
				continue // a busy machine answers later
			}
			granted(t, s, claim(dedup.Key(fmt.Sprint(name, n)), 1))
		}
	}
}

func TestAllWrongOptionsAreNamedAtOnce(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = client.Close() })
	_, err := redisstore.New(client, &redisstore.Options{Prefix: "*", Timeout: -1, Applies: -1, VouchFrom: time.Now().Add(time.Hour)})
	for _, name := range []string{"Prefix", "Timeout", "Applies", "VouchFrom"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got error %v, want it to name %s", err, name)
		}
	}
}
