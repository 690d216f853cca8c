package renew

import (
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/internal/hangtest"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

type forgetful struct{}

func (forgetful) Lost(error, bool) {}

// A process that was stopped goes on past the end of its leases before its fence has
// run: the end counts, not whether somebody has looked.
func TestLeaseEndsWithoutTheFence(t *testing.T) {
	hangtest.Watch(t)
	var r Renewer
	r.Init(func(ops []driver.Op) []driver.Reply { return make([]driver.Reply, len(ops)) }, time.Hour, time.Hour)
	defer r.Stop(t.Context())
	now := time.Now()
	l := &Lease{Holder: forgetful{}}
	r.Hold(now, l)
	for after, want := range map[time.Duration]bool{0: true, time.Hour - 1: true, time.Hour: false, 2 * time.Hour: false} {
		if got := r.Begin(now.Add(after), time.Time{}, l); got != want {
			t.Errorf("%v after the claim: got alive %v, want %v", after, got, want)
		}
	}
	if r.Drop(l); r.Begin(now, time.Time{}, l) {
		t.Error("a lease that was dropped is alive")
	}
}
