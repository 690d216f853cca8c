//go:build real && !linux

package boltstore

import "testing"

type disk struct{ path string }

func onDisk(t *testing.T, _ func(*testing.T, *disk)) {
	unavailable(t, "only Linux can take the power from a file system")
}

func (*disk) mount(*testing.T)   {}
func (*disk) unmount(*testing.T) {}
func (*disk) cut() error         { return nil }
