package redisstore

import (
	"fmt"
	"strings"
	"time"
)

// SetClock replaces the local clock.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// SetTime has the scripts take this for the server's time. The server's own expiry
// does not follow, so it must lie far ahead of the present.
func (s *Store) SetTime(now time.Time) {
	literal := fmt.Sprintf("{'%d','%d'}", now.Unix(), now.Nanosecond()/1000)
	s.lua = newScripts(func(text string) string { return strings.Replace(text, "redis.call('TIME')", literal, 1) })
}
