package harness

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// Server is a server that this program can be, in a process of its own, so that
// its CPU is told apart. It calls ready once it serves, with its address, and
// returns soon after ctx ends.
type Server func(ctx context.Context, ready func(address string)) error

// Process is a Server that runs.
type Process struct {
	Address string
	PID     int
}

// Serve starts the suite's Server of that name. It ends with the suite.
func (r *Run) Serve(name string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "--serve", r.suite.Name+"/"+name)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stdin, err := cmd.StdinPipe() // it lives as long as this is open, hence no longer than we do
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r.Cleanup(func() error {
		_ = stdin.Close() // it may have ended before
		return cmd.Wait()
	})
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("server %s ended before it was ready: %w", name, err)
	}
	return &Process{Address: strings.TrimSpace(address), PID: cmd.Process.Pid}, nil
}

// RunServer is the other side of Serve: it runs the server SUITE/NAME until stdin ends.
func RunServer(ctx context.Context, suites []Suite, name string) error {
	suite, server, _ := strings.Cut(name, "/")
	for _, s := range suites {
		if s.Name != suite || s.Servers[server] == nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
		return s.Servers[server](ctx, func(address string) { fmt.Println(address) })
	}
	return fmt.Errorf("there is no server %q", name)
}
