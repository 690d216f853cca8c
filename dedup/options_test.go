package dedup

import (
	"context"
	"log/slog"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

func deadLetter(context.Context, *Message, error) error { return nil }

func TestOptionsDefaults(t *testing.T) {
	for _, c := range []struct {
		name string
		o    *Options
		want Options // but for functions and the logger
	}{
		{"nil", nil, Options{
			TTL: 24 * time.Hour, Lease: 30 * time.Second, HandlerTimeout: 10 * time.Minute,
			MaxAttempts: 0, MaxResult: 64 << 10, ClockSkew: 5 * time.Second, Concurrency: 2 * runtime.GOMAXPROCS(0),
			OnUnkeyed: PolicyHalt, OnConflict: PolicyHalt, OnStale: PolicyProcess, OnAmbiguous: PolicyProcess,
			OnStoreError: StorePause,
		}},
		{"with DeadLetter", &Options{DeadLetter: deadLetter}, Options{
			TTL: 24 * time.Hour, Lease: 30 * time.Second, HandlerTimeout: 10 * time.Minute,
			MaxAttempts: 10, MaxResult: 64 << 10, ClockSkew: 5 * time.Second, Concurrency: 2 * runtime.GOMAXPROCS(0),
			OnUnkeyed: PolicyPark, OnConflict: PolicyPark, OnStale: PolicyProcess, OnAmbiguous: PolicyProcess,
			OnStoreError: StorePause,
		}},
		{"all set", &Options{
			TTL: time.Hour, Lease: time.Second, HandlerTimeout: time.Minute, DeadLetter: deadLetter,
			MaxAttempts: 3, MaxResult: 1, ClockSkew: time.Second, Concurrency: 1,
			OnUnkeyed: PolicyProcess, OnConflict: PolicySkip, OnStale: PolicyPark, OnAmbiguous: PolicyHalt,
			OnStoreError: StoreHalt,
		}, Options{
			TTL: time.Hour, Lease: time.Second, HandlerTimeout: time.Minute,
			MaxAttempts: 3, MaxResult: 1, ClockSkew: time.Second, Concurrency: 1,
			OnUnkeyed: PolicyProcess, OnConflict: PolicySkip, OnStale: PolicyPark, OnAmbiguous: PolicyHalt,
			OnStoreError: StoreHalt,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.o.filled()
			if err != nil {
				t.Fatal(err)
			}
			if got.Backoff == nil || got.Fingerprint == nil || got.Logger == nil {
				t.Errorf("Backoff, Fingerprint, Logger: got nil among %p, %p, %p", got.Backoff, got.Fingerprint, got.Logger)
			}
			got.Backoff, got.Fingerprint, got.DeadLetter, got.Logger = nil, nil, nil, nil
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

// TestOptionsNegative: negative stands for none where the comment says so.
func TestOptionsNegative(t *testing.T) {
	got, err := (&Options{HandlerTimeout: -1, MaxAttempts: -1, MaxResult: -1, ClockSkew: -1, DeadLetter: deadLetter}).filled()
	if err != nil {
		t.Fatal(err)
	}
	if got.HandlerTimeout >= 0 {
		t.Errorf("HandlerTimeout: got %v, want a negative one: none", got.HandlerTimeout)
	}
	if got.MaxAttempts != 0 || got.MaxResult != 0 || got.ClockSkew != 0 {
		t.Errorf("MaxAttempts, MaxResult, ClockSkew: got %d, %d, %v, want 0 for none", got.MaxAttempts, got.MaxResult, got.ClockSkew)
	}
}

func TestOptionsDefaultFunctions(t *testing.T) {
	got, err := (*Options)(nil).filled()
	if err != nil {
		t.Fatal(err)
	}
	m := &Message{Value: []byte("payload")}
	if got.Fingerprint(m) != PayloadFingerprint(m) {
		t.Errorf("Fingerprint: got %x, want that of PayloadFingerprint", got.Fingerprint(m))
	}
	if got.Logger.Enabled(t.Context(), slog.LevelError) {
		t.Errorf("Logger: writes errors, want one that discards")
	}
	within(t, got.Backoff, 1, 100*time.Millisecond)
	within(t, got.Backoff, 4, 800*time.Millisecond)
	within(t, got.Backoff, 100, 30*time.Second)
}

// within wants waits after attempt to be spread from 0 to limit.
func within(t *testing.T, backoff func(int) time.Duration, attempt int, limit time.Duration) {
	t.Helper()
	var least, most time.Duration = limit, 0
	for range 1000 {
		d := backoff(attempt)
		if d < 0 || d > limit {
			t.Fatalf("Backoff(%d): got %v, want from 0 to %v", attempt, d, limit)
		}
		least, most = min(least, d), max(most, d)
	}
	if least > limit/10 || most < limit*9/10 {
		t.Errorf("Backoff(%d): got from %v to %v in 1000 tries, want them spread from 0 to %v", attempt, least, most, limit)
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff(time.Second, time.Minute)
	for _, c := range []struct {
		attempt int
		limit   time.Duration
	}{{-1, time.Second}, {0, time.Second}, {1, time.Second}, {2, 2 * time.Second}, {6, 32 * time.Second}, {7, time.Minute}, {39, time.Minute}, {40, time.Minute}, {1 << 40, time.Minute}} {
		within(t, b, c.attempt, c.limit)
	}
	within(t, Backoff(time.Minute, time.Second), 1, time.Second)
	within(t, Backoff(1<<40+1, 24*time.Hour), 25, 24*time.Hour) // shifted by 24 bits it would be 16.8ms
}

// TestOptionsAreCopied: New does not write into the caller's Options, and does
// not see what becomes of them.
func TestOptionsAreCopied(t *testing.T) {
	o := Options{Lease: time.Second}
	before := o
	got, err := o.filled()
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(o, before) {
		t.Errorf("the caller's options: got %+v, want them as they were, %+v", o, before)
	}
	o.Lease = time.Minute
	if got.Lease != time.Second {
		t.Errorf("Lease: got %v after the caller changed theirs, want 1s", got.Lease)
	}
}

func TestOptionsRefused(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{MaxAttempts: 3}, "dedup: MaxAttempts needs a DeadLetter: without one the message would be dropped"},
		{Options{OnUnkeyed: PolicyPark}, "dedup: OnUnkeyed is park, which needs a DeadLetter: set one, or choose halt"},
		{Options{OnConflict: PolicyPark}, "dedup: OnConflict is park, which needs a DeadLetter: set one, or choose halt"},
		{Options{OnStale: PolicyPark}, "dedup: OnStale is park, which needs a DeadLetter: set one, or choose halt"},
		{Options{OnAmbiguous: PolicyPark}, "dedup: OnAmbiguous is park, which needs a DeadLetter: set one, or choose halt"},
		{Options{OnUnkeyed: PolicySkip}, "dedup: OnUnkeyed cannot be skip: a message without a key is no duplicate of anything, and would be lost"},
		{Options{OnConflict: PolicyProcess}, "dedup: OnConflict cannot be process: its record would replace that of the other message"},
		{Options{OnStale: PolicySkip}, "dedup: OnStale cannot be skip: a message that was never processed would be lost"},
		{Options{OnAmbiguous: PolicySkip}, "dedup: OnAmbiguous cannot be skip: a message whose effect did not happen would be lost"},
		{Options{OnUnkeyed: 9}, "dedup: OnUnkeyed: there is no policy 9"},
		{Options{OnStoreError: 9}, "dedup: OnStoreError: there is no policy 9"},
		{Options{Lease: 99 * time.Millisecond}, "dedup: Lease 99ms is shorter than 100ms, too short to be renewed in time"},
		{Options{Lease: -time.Second}, "dedup: Lease -1s is shorter than 100ms, too short to be renewed in time"},
		{Options{TTL: -time.Second}, "dedup: TTL -1s is negative"},
		{Options{TTL: time.Minute, Lease: 2 * time.Minute}, "dedup: TTL 1m0s is shorter than Lease 2m0s: a key would be forgotten while it is processed; lengthen TTL or shorten Lease"},
		{Options{TTL: time.Second}, "dedup: TTL 1s is shorter than Lease 30s: a key would be forgotten while it is processed; lengthen TTL or shorten Lease"},
		{Options{Concurrency: -1}, "dedup: Concurrency -1 is negative"},
	} {
		_, err := c.o.filled()
		if err == nil || err.Error() != c.want {
			t.Errorf("got error %v\nwant      %s", err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "\n") {
			t.Errorf("got error %q, want one line", err)
		}
		withDead := c.o
		withDead.DeadLetter = deadLetter
		if _, err := withDead.filled(); (err == nil) != strings.Contains(c.want, "needs a DeadLetter") {
			t.Errorf("with a DeadLetter: got error %v for what is refused without as %q", err, c.want)
		}
	}
}

// TestOptionsAccepted: the policies that the table of the design allows.
func TestOptionsAccepted(t *testing.T) {
	for _, o := range []Options{
		{OnUnkeyed: PolicyProcess},
		{OnUnkeyed: PolicyHalt},
		{OnConflict: PolicySkip},
		{OnConflict: PolicyHalt},
		{OnStale: PolicyProcess},
		{OnStale: PolicyHalt},
		{OnAmbiguous: PolicyProcess},
		{OnAmbiguous: PolicyHalt},
		{MaxAttempts: -1},
		{TTL: 30 * time.Second},
		{Lease: 100 * time.Millisecond, TTL: 100 * time.Millisecond},
	} {
		got, err := o.filled()
		if err != nil {
			t.Errorf("%+v: got error %v", o, err)
		}
		for _, p := range []struct{ set, got Policy }{
			{o.OnUnkeyed, got.OnUnkeyed}, {o.OnConflict, got.OnConflict}, {o.OnStale, got.OnStale}, {o.OnAmbiguous, got.OnAmbiguous},
		} {
			if p.set != PolicyDefault && p.got != p.set {
				t.Errorf("%+v: got policy %v, want %v", o, p.got, p.set)
			}
		}
	}
}
