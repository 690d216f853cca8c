package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// reading is the counters at one moment.
type reading struct {
	at                 time.Time
	cpu, serverCPU     time.Duration
	mallocs, allocated uint64
	device             float64
}

// read reads the counters; those of the device only if dir is not empty. Reading the
// device takes time, so the time stamp is taken before or after it, on the side of
// the work.
func read(servers []int, dir string) reading {
	r := reading{at: time.Now()}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	r.mallocs, r.allocated = m.Mallocs, m.TotalAlloc
	for _, pid := range servers {
		r.serverCPU += cpuOf(pid)
	}
	if dir != "" {
		r.device = DeviceBytesWritten(dir)
		r.at = time.Now()
	}
	r.cpu = OwnCPU()
	return r
}

// OwnCPU returns the CPU time that this process has used.
func OwnCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The kernel's clock tick in /proc, the same on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// cpuOf returns the CPU time that another process has used.
func cpuOf(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; utime and stime are the 12th
	// and 13th field after it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick
}

// DeviceBytesWritten returns the bytes ever written to the device that holds dir. It
// first writes out the page cache. It returns NaN if the device has no counter. It
// counts sectors, because the kernel's account of a process overstates small
// overwrites.
func DeviceBytesWritten(dir string) float64 {
	unix.Sync()
	b, err := os.ReadFile(filepath.Join(deviceOf(dir), "stat"))
	if err != nil {
		return nan
	}
	fields := strings.Fields(string(b))
	if len(fields) < 7 {
		return nan
	}
	sectors, err := strconv.ParseInt(fields[6], 10, 64)
	if err != nil {
		return nan
	}
	return float64(sectors) * 512
}

func deviceOf(dir string) string {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ""
	}
	dev := uint64(st.Dev)
	return fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(dev), unix.Minor(dev))
}
