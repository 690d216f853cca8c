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

// supervise runs a hop as a child process of this same program. If the world has killed the process,
// supervise starts it again. When ctx ends, the hop drains. If the process ends for another reason,
// supervise returns an error.
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
		cmd.WaitDelay = 20 * time.Second           // after that, SIGKILL
		if _, err := cmd.StdinPipe(); err != nil { // the pipe closes when this process ends
			return err
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", name, err)
		}
		w.attach(name, cmd.Process)
		_ = cmd.Wait() // ProcessState says more
		asked := w.killed(name) != killed
		switch {
		case ctx.Err() != nil && (asked || cmd.ProcessState.Success()):
			return nil
		case !asked:
			return fmt.Errorf("%s ended: %v\n%s", name, cmd.ProcessState, &stderr)
		}
	}
}
