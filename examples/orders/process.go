package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// supervise runs a hop as a child process, which is this program again, and
// starts it anew when the world has killed it. When ctx ends, the hop drains.
// An end of another kind is an error.
func supervise(ctx context.Context, w *world, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for name := args[0]; ; {
		killed := w.killed(name)
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, self, args...)
		cmd.Stderr = &stderr
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 20 * time.Second           // then SIGKILL
		if _, err := cmd.StdinPipe(); err != nil { // it ends with this process
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		w.attach(name, cmd.Process)
		_ = cmd.Wait() // its state says more
		asked := w.killed(name) != killed
		switch {
		case ctx.Err() != nil && (asked || cmd.ProcessState.Success()):
			return nil
		case !asked:
			return fmt.Errorf("%s ended: %v\n%s", name, cmd.ProcessState, &stderr)
		}
	}
}
