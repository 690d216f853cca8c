//go:build real && unix

package boltstore

import "testing"

func TestRealStop(t *testing.T) { testStop(t, many(t, "BOLTSTORE_STOPS", 50)) }
