package redisstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// tagSize is the length of what stands for an interned source.
const tagSize = 3

const (
	// maxSources bounds what a process remembers; other sources stand in the
	// records themselves.
	maxSources = 1000
	// sourceRetry is how long a source stands in the records after it could not be
	// interned.
	sourceRetry = time.Minute
)

// sources are the names of topics and streams, which nearly all records share. A
// hash on the server has them by their tags, which are the first bytes of their
// SHA-256: a tag needs no counter, so it means the same after any loss. Of two
// sources with one tag, the second stands in the records themselves.
type sources struct {
	mu    sync.RWMutex
	tags  map[string]tagged
	names map[string]string
}

type tagged struct {
	tag   string    // "": not interned
	until time.Time // then try again; zero: for ever
}

func (x *sources) init() { x.tags, x.names = make(map[string]tagged), make(map[string]string) }

// forget has every source interned again: the server may have lost some.
func (x *sources) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.tags)
}

// tag returns what stands for a source; "" if it is not interned.
func (s *Store) tag(ctx context.Context, source string) string {
	if len(source) <= tagSize {
		return ""
	}
	x := &s.sources
	x.mu.RLock()
	t, ok := x.tags[source]
	full := len(x.tags) >= maxSources
	x.mu.RUnlock()
	if ok && (t.until.IsZero() || s.now().Before(t.until)) || !ok && full {
		return t.tag
	}
	t = tagged{until: s.now().Add(sourceRetry)}
	sum := sha256.Sum256([]byte(source))
	tag := string(sum[:tagSize])
	if holder, err := s.intern(ctx, tag, source); err == nil {
		t.until = time.Time{}
		if holder == source {
			t.tag = tag
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.tags[source] = t
	if t.tag != "" {
		x.names[tag] = source
	}
	return t.tag
}

func (s *Store) sourcesKey() string { return s.o.Prefix + "sources" }

// intern returns the source that has the tag, which is this one unless another was
// first.
func (s *Store) intern(ctx context.Context, tag, source string) (holder string, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout/4) // the operations want time, too
	defer cancel()
	field := hex.EncodeToString([]byte(tag))
	var get *redis.StringCmd
	err = s.onSources(ctx, func(p redis.Pipeliner) {
		p.HSetNX(ctx, s.sourcesKey(), field, source)
		get = p.HGet(ctx, s.sourcesKey(), field)
	})
	if err != nil {
		return "", err
	}
	return get.Val(), nil
}

// onSources runs commands on the server that has the sources.
func (s *Store) onSources(ctx context.Context, commands func(redis.Pipeliner)) error {
	c, err := s.nodes.master(ctx, s.sourcesKey())
	if err != nil {
		return err
	}
	addr := address(c)
	if err := s.health.enter(addr); err != nil {
		return err
	}
	pipe := s.bounded(ctx, c).Pipeline()
	commands(pipe)
	_, err = pipe.Exec(ctx)
	if answered(err) {
		s.health.leave(addr, nil)
	} else {
		s.health.leave(addr, err)
	}
	return err
}

// named returns the source that has the tag, and "?" with the tag if that cannot
// be found: a record is of use without.
func (s *Store) named(ctx context.Context, tag string) string {
	x := &s.sources
	x.mu.RLock()
	name, ok := x.names[tag]
	x.mu.RUnlock()
	if ok {
		return name
	}
	field := hex.EncodeToString([]byte(tag))
	var get *redis.StringCmd
	if err := s.onSources(ctx, func(p redis.Pipeliner) { get = p.HGet(ctx, s.sourcesKey(), field) }); err != nil {
		return "?" + field
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.names[tag] = get.Val()
	return get.Val()
}
