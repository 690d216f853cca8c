package redisstore

import (
	"fmt"
	"strings"
	"time"
)

// Address is how errors and logs name the server of a client.
var Address = address

// SetClock replaces the local clock.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// SetTime has the scripts take this for the server's time, which must lie in the
// future. The server's own expiry
// stands by meanwhile.
func (s *Store) SetTime(now time.Time) {
	edit := strings.NewReplacer(
		"redis.call('TIME')", fmt.Sprintf("{'%d','%d'}", now.Unix(), now.Nanosecond()/1000),
		"math.max(expires, passed, now + 1) - now", "(math.max(expires, passed, now + 1) - now) * 100000", // 100 seconds for each millisecond
	)
	s.lua = newScripts(edit.Replace)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sampled, s.at = now, s.now()
}

// SplitScripts has each script take one key, as on a cluster.
func (s *Store) SplitScripts() { s.nodes = split{s.nodes} }

type split struct{ nodes }

func (split) perScript() int { return 1 }

// Timeout returns the option in force.
func (s *Store) Timeout() time.Duration { return s.o.Timeout }
