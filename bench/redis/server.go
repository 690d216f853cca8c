package redisbench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// server is a redis-server, empty at first.
type server struct {
	cluster bool // of one node, which holds all slots
	addr    string
	cmd     *exec.Cmd
	admin   *redis.Client
	dir     string
}

func start(ctx context.Context, dir string, cluster bool) (_ *server, err error) {
	s := &server{cluster: cluster}
	if s.dir, err = os.MkdirTemp(dir, "redis-"); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.addr = "127.0.0.1:" + port
	args := []string{
		"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--logfile", filepath.Join(s.dir, "log"),
		"--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction",
		"--auto-aof-rewrite-percentage", "0", // no rewrite falls into a round
		"--enable-debug-command", "local", // for HTSTATS
	}
	if cluster {
		bus, err := freePort()
		if err != nil {
			return nil, err
		}
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-announce-ip", "127.0.0.1")
	}
	s.cmd = exec.Command("redis-server", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	s.admin = redis.NewClient(&redis.Options{Addr: s.addr})
	if err := s.ready(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("redis-server at %s: %w", s.addr, err), s.stop())
	}
	return s, nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port, l.Close()
}

func (s *server) ready(ctx context.Context) error {
	if err := poll(ctx, func() error { return s.admin.Ping(ctx).Err() }); err != nil || !s.cluster {
		return err
	}
	if err := s.admin.ClusterAddSlotsRange(ctx, 0, 16383).Err(); err != nil {
		return err
	}
	return poll(ctx, func() error {
		info, err := s.admin.ClusterInfo(ctx).Result()
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errors.New("the cluster is down")
		}
		return err
	})
}

// poll calls fn until it returns no error, for ten seconds.
func poll(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

// stop ends the server and removes its files.
func (s *server) stop() error {
	err := s.admin.Close()
	_ = s.cmd.Process.Kill() // its data is of no use any more
	_ = s.cmd.Wait()
	return errors.Join(err, os.RemoveAll(s.dir))
}

// client returns a client with so many connections, 0 for its default.
func (s *server) client(connections int) redis.UniversalClient {
	if s.cluster {
		return redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{s.addr}, PoolSize: connections})
	}
	return redis.NewClient(&redis.Options{Addr: s.addr, PoolSize: connections})
}

// filler writes keys with numbers from ARGV[1] to ARGV[2].
var filler = redis.NewScript(`for i = ARGV[1], ARGV[2] do redis.call('SET', 'filler:' .. i, '', 'PX', 86400000) end`)

// fill writes n keys, and waits until the server has enlarged its tables.
func (s *server) fill(ctx context.Context, n int) error {
	const step = 50_000
	for from := 1; from <= n; from += step {
		if err := filler.Run(ctx, s.admin, nil, from, min(from+step-1, n)).Err(); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
	}
	_, err := s.settledTable(ctx)
	return err
}

// settledTable waits until no table is being enlarged, and returns the size of the keys'.
func (s *server) settledTable(ctx context.Context) (size int, err error) {
	err = poll(ctx, func() error {
		stats, err := s.admin.Do(ctx, "debug", "htstats", 0).Text()
		if err != nil {
			return err
		}
		if strings.Contains(stats, "rehashing target") {
			return errors.New("a table is being enlarged")
		}
		_, after, _ := strings.Cut(stats, "table size: ")
		number, _, _ := strings.Cut(after, "\n")
		size, err = strconv.Atoi(strings.TrimSpace(number))
		return err
	})
	return size, err
}

// info returns the sum of numbers in INFO.
func (s *server) info(ctx context.Context, names ...string) (sum float64, err error) {
	text, err := s.admin.Info(ctx).Result()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		_, after, ok := strings.Cut(text, "\n"+name+":")
		if !ok {
			return 0, fmt.Errorf("INFO has no %s", name)
		}
		number, _, _ := strings.Cut(after, "\r")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			return 0, fmt.Errorf("INFO: %s: %w", name, err)
		}
		sum += v
	}
	return sum, nil
}
