//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package boltstore

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

const lockName = "LOCK"

func lockDir(dir string) (*os.File, error) {
	return nil, fmt.Errorf("boltstore: lock %s on %s: %w: use another store there", dir, runtime.GOOS, errors.ErrUnsupported)
}

func signLock(*os.File) error { return errors.ErrUnsupported }

func unlockDir(f *os.File) error { return f.Close() }
