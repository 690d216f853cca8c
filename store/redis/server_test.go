//go:build real

package redisstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is a redis-server of the test's own, on loopback.
type server struct {
	t    *testing.T
	args []string
	addr string
	cmd  *exec.Cmd
}

// startServer starts one with these options. Its data goes with the test.
func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server not found: CI tests against real servers")
		}
		t.Skip("redis-server not found: install Redis 7 (Debian: redis-server)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	addr := l.Addr().String()
	must(t, l.Close())
	dir := t.TempDir()
	s := &server{t: t, addr: addr, args: append([]string{
		"--port", addr[strings.LastIndex(addr, ":")+1:], "--bind", "127.0.0.1", "--dir", dir,
		"--logfile", filepath.Join(dir, "redis.log"), "--save", "", "--maxmemory-policy", "noeviction",
	}, args...)}
	s.start()
	t.Cleanup(s.kill)
	return s
}

// start starts it, with the files it left, and waits until it answers.
func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	s.cmd.SysProcAttr = dieWithParent
	must(s.t, s.cmd.Start())
	c := s.client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for c.Ping(ctx).Err() != nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("redis-server at %s does not answer", s.addr)
		}
	}
}

func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) client() *redis.Client { return redis.NewClient(&redis.Options{Addr: s.addr}) }

// do sends one command of an operator.
func (s *server) do(args ...any) string {
	s.t.Helper()
	c := s.client()
	defer c.Close()
	got, err := c.Do(context.Background(), args...).Result()
	must(s.t, err)
	return fmt.Sprint(got)
}

// logger shows the log of a test that failed.
func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
