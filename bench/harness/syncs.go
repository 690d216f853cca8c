package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// tracer counts calls that wait for the disk, by strace. strace slows the process
// that it watches, so this round gives no other figure.
type tracer struct {
	dir   string
	cmd   *exec.Cmd
	calls int
}

// syncCalls are the system calls by which Pebble, bbolt, Redis and others sync.
const syncCalls = "fsync,fdatasync,msync,sync_file_range"

func (t *tracer) out() string { return filepath.Join(t.dir, "strace") }

// start returns a Skip if this process may not be watched.
func (t *tracer) start(servers []int) error {
	if len(servers) == 0 {
		servers = []int{os.Getpid()}
	}
	args := []string{"-f", "-c", "-e", "trace=" + syncCalls, "-o", t.out()}
	for _, pid := range servers {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	t.cmd = exec.Command("strace", args...)
	said, err := t.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := t.cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(said)
	for range servers {
		if !lines.Scan() || !strings.Contains(lines.Text(), "attached") {
			_ = t.cmd.Process.Kill() // it may have ended already
			_ = t.cmd.Wait()         // its output tells more
			return Skip(lines.Text())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, said) }() // ends with strace
	return nil
}

func (t *tracer) stop() error {
	if err := t.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	var signalled *exec.ExitError
	if err := t.cmd.Wait(); err != nil && !errors.As(err, &signalled) {
		return err
	}
	b, err := os.ReadFile(t.out())
	if err != nil {
		return err
	}
	// % time, seconds, usecs/call, calls, [errors,] syscall
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 5 && strings.Contains(","+syncCalls+",", ","+f[len(f)-1]+",") {
			n, err := strconv.Atoi(f[3])
			if err != nil {
				return fmt.Errorf("strace: %q", line)
			}
			t.calls += n
		}
	}
	return nil
}
