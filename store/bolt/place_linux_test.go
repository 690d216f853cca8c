package boltstore

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A store is opened anywhere, and says once if that is no good place.
func TestDoubtfulPlace(t *testing.T) {
	const memory = "/dev/shm"
	var s syscall.Statfs_t
	if err := syscall.Statfs(memory, &s); err != nil || uint32(s.Type) != 0x01021994 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is no tmpfs: type %#x, %v", memory, s.Type, err)
		}
		t.Skipf("%s is no tmpfs", memory)
	}
	dir, err := os.MkdirTemp(memory, "boltstore")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	var log bytes.Buffer
	store, err := Open(dir, &Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, store)
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, dir) || !strings.Contains(got, "gone when the machine restarts") || !strings.Contains(got, "level=WARN") {
		t.Errorf("log: got %q, want one warning that says why", got)
	}
	for _, magic := range []uint32{0x6969, 0xff534d42, 0xfe534d42, 0x01021997, 0x65735546, 0x794c7630} {
		if places[magic] == "" {
			t.Errorf("nothing is said against a file system of type %#x", magic)
		}
	}
	if why := places[0xef53]; why != "" {
		t.Errorf("ext4: got %q", why)
	}
}
