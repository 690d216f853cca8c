package boltstore

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

const (
	lease = 30 * time.Second
	day   = 24 * time.Hour
)

var position = driver.Position{Source: "orders", Partition: 3, Offset: 42}

// testClock moves when it is told to.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is a store in a directory, on a clock of its own.
type bench struct {
	*Store
	t     *testing.T
	dir   string
	clock *testClock
	hash  func(driver.ID) uint64
	opts  Options
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), hash: hashID, opts: o}
	b.clock = &testClock{now: time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)}
	b.opts.Now = b.clock.Now
	b.open()
	t.Cleanup(func() { closeStore(t, b.Store) })
	return b
}

func (b *bench) open() {
	b.t.Helper()
	s, err := openWith(b.dir, &b.opts, b.hash)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Store = s
}

func (b *bench) reopen() {
	b.t.Helper()
	closeStore(b.t, b.Store)
	b.open()
}

// crash goes on with what a crash at this moment would leave on disk.
func (b *bench) crash() {
	b.t.Helper()
	dir := b.copy()
	closeStore(b.t, b.Store)
	b.dir = dir
	b.open()
}

// copy returns a copy of the directory as it is.
func (b *bench) copy() string {
	b.t.Helper()
	dir := b.t.TempDir()
	b.still(func() { copyDir(b.t, dir, b.dir) })
	return dir
}

// still runs fn while nobody writes to the directory.
func (b *bench) still(fn func()) {
	b.tender.Lock()
	defer b.tender.Unlock()
	<-b.writer
	defer func() { b.writer <- struct{}{} }()
	fn()
}

func copyDir(t *testing.T, to, from string) {
	t.Helper()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, e.Name()), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (b *bench) apply(ops ...driver.Op) []driver.Reply {
	b.t.Helper()
	replies, err := b.Apply(b.t.Context(), ops)
	if err != nil {
		b.t.Fatalf("Apply: %v", err)
	}
	for i, r := range replies {
		if r.Err != nil {
			b.t.Fatalf("%v: %v", ops[i].Kind, r.Err)
		}
	}
	return replies
}

func (b *bench) want(op driver.Op, status driver.Status) driver.Record {
	b.t.Helper()
	r := b.apply(op)[0]
	if r.Status != status {
		b.t.Fatalf("%v: got %v, want %v (record %+v)", op.Kind, r.Status, status, r.Record)
	}
	return r.Record
}

// done claims and completes a key.
func (b *bench) done(id driver.ID, ttl time.Duration) driver.Record {
	b.t.Helper()
	r := b.want(claim1(id, 1), driver.StatusGranted)
	return b.want(complete1(id, r.Token, ttl), driver.StatusOK)
}

// fill completes n keys of the name in one batch.
func (b *bench) fill(name string, n int, ttl time.Duration) {
	b.t.Helper()
	ops := make([]driver.Op, n)
	for i := range ops {
		ops[i] = complete1(key(name, i), 1, ttl)
	}
	b.apply(ops...)
}

// nextFile makes the store go on in a new file.
func (b *bench) nextFile() {
	b.t.Helper()
	err := b.asWriter(func() error {
		_, err := b.roll(b.Store.clock.now())
		return err
	})
	if err != nil {
		b.t.Fatalf("roll: %v", err)
	}
}

func (b *bench) tend() {
	b.t.Helper()
	if err := b.Store.tend(); err != nil {
		b.t.Fatalf("tend: %v", err)
	}
}

// numbers returns those of the files in the directory.
func (b *bench) numbers() []uint64 {
	b.t.Helper()
	var numbers []uint64
	var unfinished []string
	var err error
	b.still(func() { numbers, unfinished, err = listFiles(b.dir) })
	if err != nil || len(unfinished) > 0 {
		b.t.Fatalf("files: unfinished %v, error %v", unfinished, err)
	}
	return numbers
}

// lookup wants the record of id to be in the state.
func (b *bench) lookup(id driver.ID, state driver.State) driver.Record {
	b.t.Helper()
	r, err := b.Lookup(b.t.Context(), id)
	if err != nil {
		b.t.Fatalf("Lookup: %v", err)
	}
	if r.State != state {
		b.t.Fatalf("Lookup: got state %v, want %v (record %+v)", r.State, state, r)
	}
	return r
}

func key(name string, i int) driver.ID {
	return dedup.NewID("test", dedup.Key(fmt.Sprint(name, " ", i)))
}

func claim1(id driver.ID, nonce uint64) driver.Op {
	return driver.Op{Kind: driver.OpClaim, ID: id, Nonce: nonce, Lease: lease, TTL: day, Position: position}
}

func extend1(id driver.ID, token driver.Token) driver.Op {
	return driver.Op{Kind: driver.OpExtend, ID: id, Token: token, Lease: lease, TTL: day}
}

func complete1(id driver.ID, token driver.Token, ttl time.Duration) driver.Op {
	return driver.Op{Kind: driver.OpComplete, ID: id, Token: token, TTL: ttl, Position: position, Result: []byte("result")}
}

func release1(id driver.ID, token driver.Token) driver.Op {
	return driver.Op{Kind: driver.OpRelease, ID: id, Token: token, TTL: day}
}
