package boltstore

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE of fallocate(2): the size of the file stays.
const keepSize = 1

// allocate has the disk set n bytes of f from offset on aside.
func allocate(f *os.File, offset, n int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), keepSize, offset, n)
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("fallocate", err)
		}
	}
}

// freeBytes returns how many bytes a user may still take on the disk of dir.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, os.NewSyscallError("statfs", err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil // of 32 bits on some
}
