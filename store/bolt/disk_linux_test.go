//go:build real

package boltstore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// disk is a file system of its own in memory, with a way to take its power away.
type disk struct {
	path  string // where it is mounted
	image string
	kind  string
}

// diskRoot is the environment variable that tells a child process where to mount
// its disk.
const diskRoot = "BOLTSTORE_TEST_DISK"

// onDisk runs fn with a disk, in a child process with mounts of its own. They end
// with it, whatever way it ends: nothing is left mounted, and no loop device taken.
func onDisk(t *testing.T, fn func(*testing.T, *disk)) {
	kind := fileSystem()
	if root := os.Getenv(diskRoot); root != "" {
		fn(t, newDisk(t, root, kind))
		return
	}
	if os.Geteuid() != 0 {
		unavailable(t, "only root can mount a file system to take its power")
	}
	for _, command := range []string{"mount", "mkfs." + kind} {
		if _, err := exec.LookPath(command); err != nil {
			unavailable(t, err.Error()+": install mount, e2fsprogs and xfsprogs")
		}
	}
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	timeout := time.Duration(0) // none
	if deadline, ok := t.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v=true", fmt.Sprint("-test.timeout=", timeout))
	cmd.Env = append(os.Environ(), diskRoot+"="+t.TempDir())
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		t.Fatalf("on %s, see above: %v", kind, err)
	}
}

func newDisk(t *testing.T, root, kind string) *disk {
	t.Helper()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=1g"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	d := &disk{path: filepath.Join(root, "disk"), image: filepath.Join(root, "image"), kind: kind}
	bytes, force := int64(64<<20), "-F"
	if kind == "xfs" {
		bytes, force = 320<<20, "-f" // mkfs.xfs makes none smaller than 300 MiB
	}
	err := errors.Join(os.Mkdir(d.path, 0o700), os.WriteFile(d.image, nil, 0o600), os.Truncate(d.image, bytes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs."+kind, "-q", force, d.image)
	return d
}

func run(t *testing.T, command string, args ...string) {
	t.Helper()
	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", command, args, err, out)
	}
}

// mount tries for a while: the loop device of the last time goes a moment after it
// was unmounted.
func (d *disk) mount(t *testing.T) {
	t.Helper()
	patiently(t, func() error {
		out, err := exec.Command("mount", "-t", d.kind, "-o", "loop", d.image, d.path).CombinedOutput()
		if err != nil {
			return fmt.Errorf("mount: %w: %s", err, out)
		}
		return nil
	})
}

// unmount tries for a while: what looks at new file systems, of the machine's own,
// keeps one busy.
func (d *disk) unmount(t *testing.T) {
	t.Helper()
	patiently(t, func() error {
		if err := syscall.Unmount(d.path, 0); err != nil {
			return fmt.Errorf("unmount, with what is open of it: %w", err)
		}
		return nil
	})
}

func patiently(t *testing.T, try func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// cut takes the power: what was not synced is gone, and every write fails from now
// on. See EXT4_IOC_SHUTDOWN, and XFS_IOC_GOINGDOWN, which is the same.
func (d *disk) cut() error {
	const (
		shutdown   = 0x8004587d
		noLogFlush = 2
	)
	dir, err := os.Open(d.path)
	if err != nil {
		return err
	}
	defer dir.Close()
	flags := uint32(noLogFlush)
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, dir.Fd(), shutdown, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return fmt.Errorf("take the power from %s: %w", d.path, errno)
	}
	return nil
}
