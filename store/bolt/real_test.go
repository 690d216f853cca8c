//go:build real

package boltstore

import (
	"os"
	"strconv"
	"testing"
)

// many returns how often a test is to do what it does: n times, or as often as the
// environment variable says. See scripts/soak.sh.
func many(t *testing.T, variable string, n int) int {
	t.Helper()
	if s := os.Getenv(variable); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil || n < 1 {
			t.Fatalf("%s=%q: want a positive number", variable, s)
		}
	}
	return n
}

// unavailable skips a test for want of something, which fails in CI.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s, and CI=true wants this test to run", why)
	}
	t.Skipf("NOT TESTED: %s", why)
}

func TestRealKill(t *testing.T) { testKill(t, many(t, "BOLTSTORE_KILLS", 200)) }

func TestRealCorruption(t *testing.T) { testCorruption(t, many(t, "BOLTSTORE_CORRUPTIONS", 1000)) }

func TestRealClockJumps(t *testing.T) { testClockJumps(t, many(t, "BOLTSTORE_CLOCKS", 100)) }
