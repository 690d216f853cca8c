package boltstore

import (
	"crypto/sha256"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bootID tells boots apart, and containers whose clock of the boot is shifted by a
// time namespace (time_namespaces(7)). Zero: unknown, such as where /proc is hidden.
var bootID = sync.OnceValue(func() (id [16]byte) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(boot) == 0 {
		return id
	}
	// By how much it is shifted, and not the namespace's own number, which another may
	// get later. Before Linux 5.6 there is no such file.
	offsets, _ := os.ReadFile("/proc/self/timens_offsets")
	sum := sha256.Sum256(append(boot, offsets...))
	copy(id[:], sum[:])
	return id
})

// systemUptime reads the system's clock that starts at its boot and goes on while it
// is suspended.
func systemUptime() uptime {
	var t unix.Timespec
	id := bootID()
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return uptime{}
	}
	return uptime{boot: id, passed: time.Duration(t.Nano())}
}
