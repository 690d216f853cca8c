package boltstore

import (
	"context"
	"errors"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// slowly runs fn while an Apply of ops is on its way to a slow disk, and returns
// the replies to ops.
func (b *bench) slowly(ops []driver.Op, fn func()) []driver.Reply {
	b.t.Helper()
	goOn, committing := make(chan struct{}), make(chan struct{})
	b.commit = func(tx *bolt.Tx) error { close(committing); <-goOn; return tx.Commit() }
	type answer struct {
		replies []driver.Reply
		err     error
	}
	answered := make(chan answer)
	go func() {
		replies, err := b.Apply(context.Background(), ops)
		answered <- answer{replies, err}
	}()
	<-committing
	fn()
	close(goOn)
	a := <-answered
	b.commit = (*bolt.Tx).Commit
	if a.err != nil {
		b.t.Fatal(a.err)
	}
	return a.replies
}

func TestExtendsDoNotWaitForTheDisk(t *testing.T) {
	b := newBench(t, Options{})
	k, done := key("k", 0), key("done", 0)
	r := b.want(claim1(k, 1), driver.StatusGranted)
	b.done(done, day)
	b.slowly([]driver.Op{claim1(key("other", 0), 1)}, func() {
		b.clock.advance(lease / 2)
		r = b.want(extend1(k, r.Token), driver.StatusOK)
		if got := b.want(extend1(done, 1), driver.StatusLost); got.State != driver.StateDone {
			t.Errorf("extend of a settled key: got %+v, want the record", got)
		}
		b.lookup(k, driver.StateClaimed)
		if _, err := b.Vouch(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := b.Stats(t.Context()); err != nil {
			t.Error(err)
		}
		n := 0
		for _, err := range b.Records(t.Context()) {
			n++
			if err != nil {
				t.Error(err)
			}
		}
		if n != 2 {
			t.Errorf("Records: got %d, want the two that are acknowledged", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := b.Apply(ctx, []driver.Op{claim1(key("third", 0), 1)}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Apply that gives up waiting: got %v, want its context's error", err)
		}
	})
	b.lookup(key("third", 0), driver.StateFree)
	b.clock.advance(lease - time.Second)
	if got := b.want(claim1(k, 2), driver.StatusHeld); !got.LeaseEnd.Equal(r.LeaseEnd) {
		t.Errorf("LeaseEnd: got %v, want the extended %v", got.LeaseEnd, r.LeaseEnd)
	}
}

// Nothing of a batch shows before it is on disk.
func TestUnacknowledgedEffects(t *testing.T) {
	b := newBench(t, Options{})
	k, fresh := key("k", 0), key("fresh", 0)
	r := b.want(claim1(k, 1), driver.StatusGranted)
	b.slowly([]driver.Op{complete1(k, r.Token, day), claim1(fresh, 1)}, func() {
		b.lookup(k, driver.StateClaimed)
		b.lookup(fresh, driver.StateFree)
		b.clock.advance(time.Second)
		b.want(extend1(k, r.Token), driver.StatusOK) // held as long as it is not settled
	})
	b.lookup(k, driver.StateDone)
	b.lookup(fresh, driver.StateClaimed)
	b.want(extend1(k, r.Token), driver.StatusLost)
	b.crash()
	b.lookup(k, driver.StateDone)
}

// A batch that renews a claim, and one beside it that does so later: the later
// one counts.
func TestExtendBesideABatchThatExtends(t *testing.T) {
	b := newBench(t, Options{})
	k := key("k", 0)
	r := b.want(claim1(k, 1), driver.StatusGranted)
	b.slowly([]driver.Op{extend1(k, r.Token), claim1(key("other", 0), 1)}, func() {
		b.clock.advance(time.Second)
		r = b.want(extend1(k, r.Token), driver.StatusOK)
	})
	if got := b.lookup(k, driver.StateClaimed); !same(&got, &r) {
		t.Errorf("got %+v, want %+v", got, r)
	}
	b.reopen()
	if got := b.lookup(k, driver.StateClaimed); !got.Expires.Equal(r.Expires) {
		t.Errorf("closed and opened: Expires is %v, want that of the last renewal, %v", got.Expires, r.Expires)
	}
}

// Once a take-over is decided, the old holder cannot renew any more, although
// the take-over is not on disk yet.
func TestNoExtendAgainstATakeOver(t *testing.T) {
	b := newBench(t, Options{})
	k := key("k", 0)
	r := b.want(claim1(k, 1), driver.StatusGranted)
	b.clock.advance(lease)
	replies := b.slowly([]driver.Op{claim1(k, 2)}, func() {
		b.want(extend1(k, r.Token), driver.StatusLost)
	})
	if got := replies[0]; got.Status != driver.StatusGranted || !got.Record.Ambiguous {
		t.Errorf("take-over: got %+v, want granted, Ambiguous", got)
	}
	b.want(extend1(k, r.Token), driver.StatusLost)
	b.want(extend1(k, replies[0].Record.Token), driver.StatusOK)
}
