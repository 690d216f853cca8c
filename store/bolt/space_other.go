//go:build !linux

package boltstore

import (
	"errors"
	"os"
)

// Elsewhere no room is taken ahead: a full disk shows when a write fails.

func allocate(*os.File, int64, int64) error { return errors.ErrUnsupported }

func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }
