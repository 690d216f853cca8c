//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package boltstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const lockName = "LOCK"

// lockDir locks the directory for as long as the returned file is open. The
// kernel gives the lock up when the process dies.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("boltstore: %w: make the directory writable for this user, or choose another", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	holder := ""
	if b, _ := os.ReadFile(path); len(b) > 0 {
		holder = " by process " + strings.TrimSpace(string(b))
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("boltstore: %s: %w%s: stop it, or choose another directory", dir, ErrInUse, holder)
	}
	return nil, fmt.Errorf("boltstore: lock %s: %w: the file system must support flock", path, err)
}

// signLock writes the process id into the lock, for the error that the next
// process gets. It writes over what was there, so that a full disk does not mind.
func signLock(f *os.File) error {
	_, err := fmt.Fprintf(io.NewOffsetWriter(f, 0), "%-10d\n", os.Getpid())
	return err
}

// unlockDir gives the directory up. Closing the file would not do if this process
// is just starting another one, which has the file open, too, until it executes.
func unlockDir(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
