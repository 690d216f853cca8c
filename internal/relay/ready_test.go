package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// still is a source whose status is what the test says.
type still struct {
	pump
	status sourceStatus
}

func (s *still) Status() sourceStatus { return s.status }

// probed is a sink that answers probes as the test says.
type probedSink struct {
	fakeSink
	err    error
	hangs  bool
	probes int
}

func (s *probedSink) Check(ctx context.Context) error {
	s.probes++
	if s.hangs {
		<-ctx.Done()
		return fmt.Errorf("no broker answers: %w", ctx.Err())
	}
	return s.err
}

// brokenStore is a store whose operations fail.
type brokenStore struct {
	driver.Store
	err error
}

func (s *brokenStore) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Apply(ctx, ops)
}

// fakes are the parts of a Relay that is relaying, and well.
type fakes struct {
	*Relay
	source          *still
	target, letters *probedSink
	store           *brokenStore
}

func newFakes() *fakes {
	f := &fakes{
		source: &still{status: sourceStatus{Assigned: 3, Progress: time.Now()}},
		target: &probedSink{}, letters: &probedSink{},
		store: &brokenStore{Store: memstore.New(nil)},
	}
	f.Relay = &Relay{
		source: f.source, sink: f.target, letters: f.letters, records: f.store,
		output: health{what: "the target", logger: slog.New(slog.DiscardHandler)},
	}
	f.activity.base = time.Now()
	f.activity.enter(relaying)
	return f
}

func TestReady(t *testing.T) {
	down := errors.New("connection refused\nby peer")
	for name, c := range map[string]struct {
		change func(f *fakes)
		check  string // the one that is not ok; empty: all are
		reason string
	}{
		"all is well":          {func(*fakes) {}, "", ""},
		"without dead letters": {func(f *fakes) { f.Relay.letters = nil }, "", ""},
		"opening":              {func(f *fakes) { f.activity.enter(opening) }, "relay", "opening"},
		"draining":             {func(f *fakes) { f.activity.drain() }, "relay", "draining"},
		"stopped":              {func(f *fakes) { f.activity.enter(stopped); f.activity.drain() }, "relay", "stopped"},
		"no partition":         {func(f *fakes) { f.source.status.Assigned = 0 }, "source", "nothing is assigned"},
		"halted":               {func(f *fakes) { f.source.status.Halted = 1 }, "source", "1 of 3 partitions halted"},
		"source fails": {func(f *fakes) {
			f.source.status.Failing, f.source.status.Since = []string{"a/0", "a/1", "a/2", "a/3", "a/4", "a/5", "group"}, time.Now().Add(-time.Minute)
		}, "source", "no answer for 1m0s: a/0, a/1, a/2, a/3, a/4 and 2 more"},
		"a right is missing": {func(f *fakes) {
			f.source.status.Failing, f.source.status.Since = []string{"group"}, time.Now().Add(-time.Minute)
			f.source.status.Cause = "denied: grant this user READ"
		}, "source", "failing for 1m0s: group: denied: grant this user READ"},
		"target is away":         {func(f *fakes) { f.target.err = down }, "target", "connection refused by peer"},
		"target hangs":           {func(f *fakes) { f.target.hangs = true }, "target", "deadline exceeded"},
		"target takes nothing":   {func(f *fakes) { f.output.seen([]error{dedup.Transient(down)}) }, "target", "taken no message"},
		"dead letters are away":  {func(f *fakes) { f.letters.err = down }, "dead_letter", "connection refused"},
		"store does not answer":  {func(f *fakes) { f.store.err = down }, "store", "connection refused"},
		"store takes no records": {func(f *fakes) { f.activity.hooks().Applied(1, time.Second, errors.New("disk full")) }, "store", "disk full"},
		"messages are stuck": {func(f *fakes) {
			f.activity.hooks().Started(dedup.Event{})
			time.Sleep(slow + time.Second)
			f.activity.hooks().Applied(1, 0, nil) // leases are extended
		}, "relay", "1 messages are under way"},
		"messages move again": {func(f *fakes) {
			f.activity.hooks().Started(dedup.Event{})
			time.Sleep(time.Hour)
			f.activity.hooks().Decided(dedup.Event{})
		}, "", ""},
		"target took a message since": {func(f *fakes) { f.output.seen([]error{dedup.Transient(down)}); f.output.seen([]error{nil}) }, "", ""},
		"the partition went to another member": {func(f *fakes) {
			f.output.seen([]error{dedup.Transient(down)})
			time.Sleep(time.Minute)
		}, "", ""},
		"store took a record since": {func(f *fakes) {
			f.activity.hooks().Applied(1, time.Second, down)
			time.Sleep(10 * time.Second)
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes()
				c.change(f)
				begin := time.Now()
				got := f.ready()
				if took := time.Since(begin); took > probeTimeout {
					t.Errorf("took %v, want at most %v", took, probeTimeout)
				}
				if got.Ready != (c.check == "") {
					t.Errorf("got %+v", got)
				}
				for name, check := range got.Checks {
					if check.OK != (name != c.check) || strings.Contains(check.Reason, "\n") {
						t.Errorf("%s: got %+v", name, check)
					}
				}
				if reason := got.Checks[c.check].Reason; !strings.Contains(reason, c.reason) {
					t.Errorf("got reason %q, want %q", reason, c.reason)
				}
			})
		})
	}
}

// However many ask, the brokers are asked once a second.
func TestProbesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		for range 100 {
			f.ready()
		}
		if f.target.probes != 1 {
			t.Errorf("got %d probes, want 1", f.target.probes)
		}
		f.target.err = errors.New("down")
		time.Sleep(probeInterval)
		if got := f.ready(); got.Ready || f.target.probes != 2 {
			t.Errorf("got %+v after %d probes, want not ready after 2", got, f.target.probes)
		}
	})
}

func TestAlive(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f *fakes)
		reason string // empty: alive
	}{
		"opens for long":           {func(f *fakes) { f.activity.enter(opening); time.Sleep(time.Hour) }, ""},
		"no partition, and polls":  {func(f *fakes) { time.Sleep(time.Hour); f.source.status = sourceStatus{Progress: time.Now()} }, ""},
		"nothing moves":            {func(*fakes) { time.Sleep(stuck + time.Second) }, "nothing has moved for 2m1s, with 0 messages"},
		"stopped":                  {func(f *fakes) { f.activity.enter(stopped) }, "stopped"},
		"store is away for long":   {func(f *fakes) { tries(f, func() { f.activity.hooks().Applied(1, 0, errors.New("down")) }) }, ""},
		"target is away for long":  {func(f *fakes) { tries(f, f.activity.moved) }, ""},
		"fetches, but is stuck":    {func(f *fakes) { tries(f, func() { f.source.status.Progress = time.Now() }) }, "with 1 messages"},
		"extends, but is stuck":    {func(f *fakes) { tries(f, func() { f.activity.hooks().Applied(1, 0, nil) }) }, "with 1 messages"},
		"drains, and nothing ends": {func(f *fakes) { f.activity.drain(); tries(f, func() {}) }, "with 1 messages"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakes()
				c.change(f)
				switch err := f.alive(); {
				case c.reason == "" && err != nil:
					t.Errorf("got %v, want alive", err)
				case c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason)):
					t.Errorf("got %v, want %q", err, c.reason)
				}
			})
		})
	}
}

// tries calls try every second for an hour, with one message under way.
func tries(f *fakes, try func()) {
	f.activity.hooks().Started(dedup.Event{})
	for range 3600 {
		time.Sleep(time.Second)
		try()
	}
}
