package boltstore

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

var errDisk = errors.New("input/output error")

// When a write fails nobody knows what is on disk. The store says so, and
// acknowledges nothing from then on; a new Open finds out.
func TestPoisoned(t *testing.T) {
	for _, tt := range []struct {
		name    string
		commit  func(*bolt.Tx) error
		written driver.State
	}{
		{"nothing written", func(tx *bolt.Tx) error { return errors.Join(errDisk, tx.Rollback()) }, driver.StateClaimed},
		{"written, and the fsync failed", func(tx *bolt.Tx) error { return errors.Join(tx.Commit(), errDisk) }, driver.StateDone},
		{"bbolt panics", func(tx *bolt.Tx) error { panic(errDisk) }, driver.StateClaimed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			b := newBench(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			k, done, held := key("k", 0), key("done", 0), key("held", 0)
			b.done(done, day)
			h := b.want(claim1(held, 1), driver.StatusGranted)
			r := b.want(claim1(k, 1), driver.StatusGranted)
			b.commit = tt.commit
			replies, err := b.Apply(t.Context(), []driver.Op{claim1(done, 2), complete1(k, r.Token, day)})
			if err != nil || len(replies) != 2 {
				t.Fatalf("Apply: got %v, %v, want a reply to each op", replies, err)
			}
			for i, reply := range replies {
				if !errors.Is(reply.Err, ErrPoisoned) || !driver.IsPermanent(reply.Err) || reply.Status != 0 {
					t.Errorf("reply %d: got %+v, want ErrPoisoned, permanent", i, reply)
				}
			}
			oneLine(t, replies[0].Err, b.dir)

			b.commit = (*bolt.Tx).Commit // it would work again, but that proves nothing
			for name, call := range map[string]func() error{
				"Apply":      func() error { _, err := b.Apply(t.Context(), []driver.Op{claim1(k, 2)}); return err },
				"Apply read": func() error { _, err := b.Apply(t.Context(), []driver.Op{claim1(done, 2)}); return err },
				"extend":     func() error { _, err := b.Apply(t.Context(), []driver.Op{extend1(held, h.Token)}); return err },
				"Vouch":      func() error { _, err := b.Vouch(t.Context()); return err },
				"Lookup":     func() error { _, err := b.Lookup(t.Context(), done); return err },
				"Stats":      func() error { _, err := b.Stats(t.Context()); return err },
				"Forget":     func() error { return b.Forget(t.Context(), []driver.ID{done}) },
				"tend":       b.Store.tend,
				"Records": func() (last error) {
					for _, err := range b.Records(t.Context()) {
						last = err
					}
					return last
				},
			} {
				if err := call(); !errors.Is(err, ErrPoisoned) || !driver.IsPermanent(err) {
					t.Errorf("%s: got %v, want ErrPoisoned, permanent", name, err)
				}
			}
			if got := strings.Count(log.String(), "refuses all further work"); got != 1 || !strings.Contains(log.String(), errDisk.Error()) {
				t.Errorf("log: got %q, want one line with the cause", log.String())
			}

			b.reopen()
			b.lookup(k, tt.written)
			b.lookup(done, driver.StateDone)
			next := b.want(claim1(key("next", 0), 1), driver.StatusGranted)
			if next.Token <= r.Token {
				t.Errorf("token: got %d, want more than %d", next.Token, r.Token)
			}
		})
	}
}

// A file that cannot be made leaves everything as it was: nothing was attempted.
func TestRollFails(t *testing.T) {
	b := newBench(t, Options{})
	b.fill("k", 10, day)
	dir := b.Store.dir
	b.clock.advance(2 * day)
	b.Store.space.dir = "/proc/self/none"
	replies, err := b.Apply(t.Context(), []driver.Op{claim1(key("new", 0), 1)})
	if err == nil || replies != nil || errors.Is(err, ErrPoisoned) || driver.IsPermanent(err) {
		t.Errorf("got %v, %v, want an error of Apply itself that may pass", replies, err)
	}
	oneLine(t, err, fileName(2), "let this user write")
	b.Store.space.dir = dir
	b.want(claim1(key("new", 0), 1), driver.StatusGranted)
}

func TestClosed(t *testing.T) {
	b := newBench(t, Options{})
	b.done(key("k", 0), day)
	// An Apply that waits for its turn is told, too.
	commit, committing := make(chan struct{}), make(chan struct{})
	b.commit = func(tx *bolt.Tx) error { close(committing); <-commit; return tx.Commit() }
	first, closed := make(chan error), make(chan error)
	go func() {
		_, err := b.Apply(context.Background(), []driver.Op{claim1(key("k", 1), 1)})
		first <- err
	}()
	<-committing
	go func() { closed <- b.Close() }()
	<-b.stop
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Apply(ended, []driver.Op{claim1(key("k", 2), 1)}); !errors.Is(err, context.Canceled) || driver.IsPermanent(err) {
		t.Errorf("Apply under an ended context: got %v, want context.Canceled, not permanent", err)
	}
	b.commit = (*bolt.Tx).Commit // of Close
	close(commit)
	if err := <-first; err != nil {
		t.Errorf("the Apply under way: got %v", err)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: got %v", err)
	}
	if _, err := b.Apply(t.Context(), []driver.Op{claim1(key("k", 2), 1)}); !errors.Is(err, ErrClosed) || !driver.IsPermanent(err) {
		t.Errorf("Apply: got %v, want ErrClosed, permanent", err)
	}
	if _, err := b.Apply(t.Context(), []driver.Op{extend1(key("k", 0), 1)}); !errors.Is(err, ErrClosed) || !driver.IsPermanent(err) {
		t.Errorf("extend: got %v, want ErrClosed, permanent", err)
	}
	if _, err := b.Lookup(t.Context(), key("k", 0)); !errors.Is(err, ErrClosed) {
		t.Errorf("Lookup: got %v, want ErrClosed", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close again: got %v", err)
	}
	b.open()
	b.lookup(key("k", 1), driver.StateClaimed)
}
