package boltstore

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Every number is refused with a line that names it, or a store works with it.
func TestExtremeOptions(t *testing.T) {
	fields := map[string]func(o *Options, n int64){
		"RollBytes": func(o *Options, n int64) { o.RollBytes = n },
		"MaxBytes":  func(o *Options, n int64) { o.MaxBytes = n },
		"RollAge":   func(o *Options, n int64) { o.RollAge = time.Duration(n) },
	}
	for name, set := range fields {
		for _, n := range []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, int64(time.Millisecond), 64 << 20, maxRollBytes, math.MaxInt64 - 1, math.MaxInt64} {
			t.Run(fmt.Sprint(name, "=", n), func(t *testing.T) {
				var o Options
				set(&o, n)
				dir := filepath.Join(t.TempDir(), "store")
				for range 2 { // anew, and again
					s, err := Open(dir, &o)
					if err != nil {
						if !strings.HasPrefix(err.Error(), "boltstore: "+name) {
							t.Errorf("got error %v, which does not name it", err)
						}
						return
					}
					for i := range 20 {
						var id driver.ID
						id[0] = byte(i + 1)
						replies, err := s.Apply(t.Context(), []driver.Op{{Kind: driver.OpClaim, ID: id, Nonce: 1, Lease: time.Minute, TTL: time.Hour}})
						if err != nil || replies[0].Err != nil {
							t.Fatalf("got %v, %+v", err, replies)
						}
						if r := replies[0]; r.Status == driver.StatusGranted {
							replies, err = s.Apply(t.Context(), []driver.Op{{Kind: driver.OpComplete, ID: id, Token: r.Record.Token, TTL: time.Hour}})
							if err != nil || replies[0].Err != nil || replies[0].Status != driver.StatusOK {
								t.Fatalf("got %v, %+v", err, replies)
							}
						} else if r.Status != driver.StatusDone {
							t.Errorf("got %v, want it granted, or done after it was opened again", r.Status)
						}
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

func TestAllWrongOptionsAreNamedAtOnce(t *testing.T) {
	_, err := Open(t.TempDir(), &Options{RollBytes: 1, MaxBytes: 1, RollAge: -1, VouchFrom: time.Now().Add(time.Hour)})
	for _, name := range []string{"RollBytes", "MaxBytes", "RollAge", "VouchFrom"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got error %v, want it to name %s", err, name)
		}
	}
}
