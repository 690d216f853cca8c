// Package redistest runs a Redis server in process for tests: miniredis, with the
// commands added that redisstore needs and miniredis lacks.
package redistest

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// Server is a miniredis that has INFO as Redis 7 does, and takes scripts that
// begin with a line of flags.
type Server struct {
	*miniredis.Miniredis

	mu    sync.Mutex
	info  map[string]string
	now   time.Time         // zero: the present
	plain map[string]string // SHA-1 of a script without its flags, by that with them
}

// test is the part of testing.TB that Run uses.
type test interface {
	Helper()
	Cleanup(func())
	Fatal(args ...any)
}

// Run starts a server, which ends with the test.
func Run(t test) *Server {
	t.Helper()
	s := &Server{Miniredis: miniredis.NewMiniRedis(), plain: make(map[string]string)}
	s.info = map[string]string{
		"redis_version": "7.0.15", "role": "master", "maxmemory": "0", "maxmemory_policy": "noeviction",
		"connected_slaves": "0", "aof_enabled": "0", "used_memory": "1000000",
	}
	s.Replace()
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Server().SetPreHook(s.hook)
	return s
}

// Restart starts a closed server again, on its port and with its data.
func (s *Server) Restart() error {
	err := s.Miniredis.Restart()
	if err == nil {
		s.Server().SetPreHook(s.hook)
	}
	return err
}

// Set changes a line of INFO.
func (s *Server) Set(name, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.info[name] = value
}

// Replace has another server answer from now on, as far as INFO tells.
func (s *Server) Replace() {
	run := make([]byte, 20)
	_, _ = rand.Read(run)
	s.Set("run_id", hex.EncodeToString(run))
	_, _ = rand.Read(run)
	s.Set("master_replid", hex.EncodeToString(run))
}

// At moves the server's time. Keys whose time has come expire.
func (s *Server) At(now time.Time) {
	s.mu.Lock()
	before := s.now
	s.now = now
	s.mu.Unlock()
	s.SetTime(now)
	if d := now.Sub(before); !before.IsZero() && d > 0 {
		s.FastForward(d)
	}
}

// hook answers the commands that miniredis lacks, and rewrites scripts.
func (s *Server) hook(c *server.Peer, cmd string, args ...string) bool {
	switch {
	case cmd == "INFO":
		c.WriteBulk(s.text())
		return true
	case cmd == "SCRIPT" && len(args) == 2 && strings.EqualFold(args[0], "load"):
		args[1] = s.strip(args[1])
	case cmd == "EVAL" && len(args) > 0:
		args[0] = s.strip(args[0])
	case cmd == "EVALSHA" && len(args) > 0:
		s.mu.Lock()
		defer s.mu.Unlock()
		if sha, ok := s.plain[args[0]]; ok {
			args[0] = sha
		}
	}
	return false
}

// strip takes the line of flags off a script.
func (s *Server) strip(text string) string {
	if !strings.HasPrefix(text, "#!lua") {
		return text
	}
	_, rest, _ := strings.Cut(text, "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain[sum(text)] = sum(rest)
	return rest
}

func sum(text string) string {
	h := sha1.Sum([]byte(text))
	return hex.EncodeToString(h[:])
}

func (s *Server) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now
	if now.IsZero() {
		now = time.Now()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Server\r\nserver_time_usec:%d\r\n", now.UnixMicro())
	for name, value := range s.info {
		fmt.Fprintf(&b, "%s:%s\r\n", name, value)
	}
	return b.String()
}
