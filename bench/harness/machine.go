package harness

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where the run took place.
type Machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"` // that Go uses
	System     string  `json:"system"`
	Go         string  `json:"go"`
	Commit     string  `json:"commit,omitempty"`
	FileSystem string  `json:"file_system"`
	SyncMicros float64 `json:"sync_micros"` // median of fdatasync after an append of 4 KiB
}

func (m Machine) String() string {
	s := fmt.Sprintf("%s, %d cores, %s, %s, %s with fdatasync in %.0f µs", m.CPU, m.Cores, m.System, m.Go, m.FileSystem, m.SyncMicros)
	if m.Commit != "" {
		s += ", commit " + m.Commit
	}
	return s
}

func inspectMachine(dir string) (Machine, error) {
	m := Machine{CPU: runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Go: runtime.Version()}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "model name"); ok {
				m.CPU = strings.TrimLeft(strings.TrimSpace(name), ": ")
				break
			}
		}
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		m.System = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Commit = s.Value[:min(len(s.Value), 12)]
			}
		}
	}
	var err error
	if m.FileSystem, err = checkDisk(dir); err != nil {
		return m, err
	}
	took, err := syncTime(dir)
	m.SyncMicros = micros(took)
	return m, err
}
