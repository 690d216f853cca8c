package boltstore

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// What a message costs is promised in counts: transactions, pages, allocations.
// The clock of the machine that runs the tests has no say in it.

// costs counts what the store writes.
type costs struct{ commits, pages int64 }

// count has b count from now on.
func (b *bench) count() *costs {
	var c costs
	b.commit = func(tx *bolt.Tx) error {
		db := tx.DB()
		before := db.Stats().TxStats
		err := tx.Commit()
		after := db.Stats().TxStats
		c.commits++
		c.pages += after.GetPageCount() - before.GetPageCount() + 1 // and the meta page
		return err
	}
	return &c
}

// stream has the store claim batches of 256 new keys, each together with the
// completes of the one before.
type stream struct {
	b   *bench
	n   int
	ops []driver.Op
}

const streamBatch = 256

// next adds the claims of the next batch.
func (s *stream) next() {
	for range streamBatch {
		var id driver.ID // without an allocation
		binary.LittleEndian.PutUint64(id[:], uint64(s.n+1)*0x9e3779b97f4a7c15)
		op := claim1(id, uint64(s.n)+1)
		op.Position.Offset, op.Fingerprint = 1e9+int64(s.n), driver.Fingerprint(op.ID[:8])
		s.ops = append(s.ops, op)
		s.n++
	}
}

// apply applies the ops of a batch and makes completes of its claims.
func (s *stream) apply() {
	replies, err := s.b.Apply(s.b.t.Context(), s.ops)
	if err != nil {
		s.b.t.Fatal(err)
	}
	claims := len(s.ops) - streamBatch
	for i, r := range replies[claims:] {
		op := &s.ops[claims+i]
		if r.Status != driver.StatusGranted {
			s.b.t.Fatalf("claim: got %+v, want it granted", r)
		}
		op.Kind, op.Token = driver.OpComplete, r.Record.Token
	}
	s.ops = append(s.ops[:0], s.ops[claims:]...)
}

func (s *stream) run(batches int) {
	for range batches {
		s.next()
		s.apply()
	}
}

// A batch is one transaction, which bbolt syncs twice: 7.8 times for 1,000
// messages. It fills pages, however many keys there are.
func TestWhatAMessageWrites(t *testing.T) {
	b := newBench(t, Options{})
	const batches = 20
	perMessage := func() float64 {
		c := b.count()
		(&stream{b: b, n: b.index.n}).run(batches)
		if c.commits != batches {
			t.Errorf("got %d transactions for %d batches", c.commits, batches)
		}
		return float64(c.pages*4096) / (batches * streamBatch)
	}
	(&stream{b: b}).run(40) // from here on the tree has as many levels as a file of 64 MiB
	few := perMessage()
	for i := range 40 {
		ops := make([]driver.Op, 1000)
		for j := range ops {
			ops[j] = complete1(key("more", i*len(ops)+j), 1, day)
		}
		b.apply(ops...)
	}
	many := perMessage()
	// A message of the stream writes two entries; one in five of a real one is a duplicate and writes none.
	if few*0.8 > 300 {
		t.Errorf("got %.0f bytes for a message that is no duplicate, want at most %d", few, 300*10/8)
	}
	if many > few*1.1 || many < few*0.9 {
		t.Errorf("got %.0f bytes with few keys, %.0f with 40,000 more; want the same within a tenth", few, many)
	}
	t.Logf("%.0f bytes for a message that is no duplicate; with 40,000 more keys %.0f", few, many)
}

// An entry without a result takes at most 96 bytes, however late, far on and often
// tried.
func TestWhatAnEntryTakes(t *testing.T) {
	now := base.Add(time.Hour)
	for _, state := range []driver.State{driver.StateClaimed, driver.StateReleased, driver.StateDone, driver.StateParked} {
		e := entry{id: driver.ID{1}, prev: 1e9, written: now, record: driver.Record{
			State: state, Token: driver.Token(now.UnixMicro()), Nonce: 1 << 63, Attempt: 100, Ambiguous: true,
			LeaseEnd: now.Add(lease), Expires: now.Add(30 * day), FirstSeen: now.Add(-day),
			First: driver.Position{Source: "orders", Partition: 10_000, Offset: 1e12}, Fingerprint: driver.Fingerprint{1},
		}}
		if got := len(appendEntry(nil, base, 100, 2e9, &e)); got > 96 {
			t.Errorf("state %v: got %d bytes, want at most 96", state, got)
		}
	}
}

func TestWhatAMessageAllocates(t *testing.T) {
	b := newBench(t, Options{})
	s := &stream{b: b}
	s.run(10)
	got := testing.AllocsPerRun(20, func() { s.run(1) }) / streamBatch
	if got > 10 {
		t.Errorf("got %.1f allocations for a message, want at most 10, of which bbolt makes 7", got)
	}
}

// Of the records of a file that is dropped those that have expired cost nothing,
// and those that live are written again many at a time.
func TestWhatADropWrites(t *testing.T) {
	b := newBench(t, Options{})
	const expired, living = 20 * 1024, 100
	for i := range expired / 1024 {
		ops := make([]driver.Op, 1024)
		for j := range ops {
			ops[j] = complete1(key("expired", i*1024+j), 1, time.Minute)
		}
		for j := range living * 1024 / expired {
			ops[j*200] = complete1(key("living", i*100+j), 1, 30*day)
		}
		b.apply(ops...)
	}
	b.nextFile()
	b.clock.advance(2 * time.Hour)
	c := b.count()
	b.tend()
	if got := b.numbers()[0]; got != 2 {
		t.Fatalf("the oldest file is %d, want the first one dropped", got)
	}
	if c.commits > 1 {
		t.Errorf("got %d transactions for %d records of which %d live, want one", c.commits, expired, living)
	}
	if got := b.index.n; got != living {
		t.Errorf("got %d records, want %d", got, living)
	}
}

// A put moves no more than the entries of one of 1,024 tables when that grows: at
// ten million keys about 10,000, which takes less than a millisecond.
func TestIndexGrowsInSmallSteps(t *testing.T) {
	var x index
	rng := rand.New(rand.NewPCG(1, 2))
	const entries = 1 << 18
	most := 0
	for i := range entries {
		hash := rng.Uint64()
		table := x.of(hash)
		size, n := len(table.slots), table.n
		x.put(hash, 0, uint64(i+1))
		if len(table.slots) != size {
			most = max(most, n)
		}
	}
	if limit := 2 * entries / indexShards; most == 0 || most > limit {
		t.Errorf("got %d of %d entries moved by one put, want at most %d", most, entries, limit)
	}
}
