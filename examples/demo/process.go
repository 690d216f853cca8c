package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// build compiles the relay, as its users do.
func build(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "dedup-relay")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/oncequeue/oncequeue/cmd/dedup-relay").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build dedup-relay: %w: %s\nRun the demo in a checkout of oncequeue, with Go installed: go run ./examples/demo", err, bytes.TrimSpace(out))
	}
	return binary, nil
}

// relayProcess is the relay as a child process. It is started again and again.
type relayProcess struct {
	binary string
	args   []string
	kills  int

	cmd    *exec.Cmd
	stderr *bytes.Buffer
	exited chan struct{}
	err    error // set when exited is closed
}

func (p *relayProcess) start() error {
	stderr := &bytes.Buffer{}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dedup-relay: %w", err)
	}
	exited := make(chan struct{})
	p.cmd, p.stderr, p.exited = cmd, stderr, exited
	go func() {
		p.err = cmd.Wait()
		close(exited)
	}()
	return nil
}

// alive returns an error if the relay has exited by itself.
func (p *relayProcess) alive() error {
	select {
	case <-p.exited:
		return fmt.Errorf("dedup-relay ended by itself: %w\n%s", errors.Join(p.err, errors.New("exit")), p.stderr)
	default:
		return nil
	}
}

// kill sends SIGKILL, and waits until the process is gone.
func (p *relayProcess) kill() {
	if p.cmd == nil {
		return
	}
	if p.cmd.Process.Kill() == nil {
		p.kills++
	}
	<-p.exited
}

// stop tells the relay to drain and exit. It returns an error if the relay does not exit cleanly.
func (p *relayProcess) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("dedup-relay did not stop within 2m of SIGTERM\n%s", p.stderr)
	}
	if p.err != nil {
		return fmt.Errorf("dedup-relay did not stop cleanly: %w\n%s", p.err, p.stderr)
	}
	return nil
}
