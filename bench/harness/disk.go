package harness

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

var nan = math.NaN()

// Names of file systems by their magic numbers in linux/magic.h.
var fileSystems = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.NFS_SUPER_MAGIC: "nfs",
}

// checkDisk returns the name of dir's file system, and refuses one in memory:
// an fsync there costs nothing.
func checkDisk(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	magic := int64(st.Type)
	name := fileSystems[magic]
	if name == "" {
		name = fmt.Sprintf("%#x", magic)
	}
	if magic == unix.TMPFS_MAGIC || magic == unix.RAMFS_MAGIC {
		return "", fmt.Errorf("%s is on %s, where an fsync costs nothing: name a directory on a disk with --dir", dir, name)
	}
	return name, nil
}

// syncTime returns how long the disk takes to sync an append of 4 KiB: the median of some.
func syncTime(dir string) (took time.Duration, err error) {
	path := filepath.Join(dir, "sync")
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(path)
	defer f.Close()
	var times []time.Duration
	for range 200 {
		start := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}
