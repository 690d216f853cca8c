package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a hop as a child process: this program, started again. It may be
// killed by another goroutine than the one that starts and stops it.
type process struct {
	args   []string
	starts int

	mu     sync.Mutex
	cmd    *exec.Cmd
	stderr *bytes.Buffer
	done   chan struct{}
	err    error // of the exit, once done is closed
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	stderr, done := &bytes.Buffer{}, make(chan struct{})
	cmd := exec.Command(self, p.args...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.args[0], err)
	}
	p.cmd, p.stderr, p.done = cmd, stderr, done
	p.starts++
	go func() {
		p.err = cmd.Wait()
		close(done)
	}()
	return nil
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// failure says how it exited.
func (p *process) failure() error { return fmt.Errorf("exit: %v\n%s", p.err, p.stderr) }

// kill is the power cord.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have exited
		<-p.done
	}
}

// stop asks it to drain and exit, and expects it to do so cleanly.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s did not stop within 30s of SIGTERM", p.args[0])
	}
	if p.err != nil {
		return p.failure()
	}
	return nil
}
