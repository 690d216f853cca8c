package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/oncequeue/oncequeue/bench/harness"
)

// TestSmoke runs a tiny round of each contender of the suite that needs no server.
func TestSmoke(t *testing.T) {
	dir, err := os.MkdirTemp(".", "smoke-") // the system's temporary directory may be in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "result.json")
	args := []string{"--only", "bolt", "--rounds", "1", "--messages", "2000", "--dir", dir, "--json", path}
	if code := run(t.Context(), args); code != 0 {
		t.Fatalf("run(%q): exit code %d, want 0", args, code)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var report harness.Report
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Suites) != 1 || len(report.Suites[0].Contenders) == 0 {
		t.Fatalf("got %+v, want one suite with contenders", report)
	}
	for _, c := range report.Suites[0].Contenders {
		if v := c.Metrics[harness.Rate]; v.N != 1 || v.Median <= 0 {
			t.Errorf("%s: rate %+v, want one positive value", c.Name, v)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, args := range [][]string{{"--rounds", "0"}, {"--messages", "-1"}, {"bolt"}, {"--what"}} {
		if code := run(t.Context(), args); code != 2 {
			t.Errorf("run(%q): exit code %d, want 2", args, code)
		}
	}
	if code := run(t.Context(), []string{"--only", "nothing"}); code != 1 {
		t.Errorf("an unknown suite: exit code %d, want 1", code)
	}
}
