package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// seeds returns what a random test begins with: the environment variable's number,
// of which each case is then logged before it begins, or any.
func seeds(t *testing.T) (seed uint64, given bool) {
	t.Helper()
	if s := os.Getenv("BOLTSTORE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("BOLTSTORE_SEED=%q: want a number", s)
		}
		return n, true
	}
	seed = rand.Uint64()
	// Not by t.Log, which says nothing when the process ends by a panic.
	fmt.Fprintf(os.Stderr, "%s: to run it again: BOLTSTORE_SEED=%d\n", t.Name(), seed)
	return seed, false
}

func TestCorruption(t *testing.T) {
	t.Parallel()
	testCorruption(t, 40)
}

// testCorruption damages a file, in turns of a store that is closed and of one that
// is open. Every answer from then on is right, or an error that says where the
// damage is; nothing panics, and nothing hangs.
func testCorruption(t *testing.T, cases int) {
	seed, given := seeds(t)
	o := newOriginal(t)
	tally := make(map[string]int)
	placeless := 0
	for i := range cases {
		c := &corruption{original: o, t: t, rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		c.dir = filepath.Join(o.t.TempDir(), "store")
		if given {
			t.Logf("case %d", i)
		}
		watchdog := time.AfterFunc(3*time.Minute, func() {
			panic(fmt.Sprintf("seed %d, case %d, %s: it hangs", seed, i, c.what))
		})
		outcome := c.run(i%2 == 0)
		watchdog.Stop()
		tally[outcome]++
		placeless += c.placeless
		if err := os.RemoveAll(c.dir); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("seed %d, case %d: %s", seed, i, c.what)
		}
		if cases >= 50 && i%(cases/10) == 0 {
			t.Logf("%d of %d: %v", i, cases, tally)
		}
	}
	t.Logf("%d damages: %v; %d errors name a file and no place in it", cases, tally, placeless)
	if tally[refused] == 0 || tally[harmless] == 0 || tally[answered] == 0 {
		t.Errorf("got only %v of the ways in which damage can show", slices.Sorted(maps.Keys(tally)))
	}
}

const (
	refused  = "Open failed"
	harmless = "nothing was lost"
	answered = "some answers were errors"
	// bbolt follows pages in a circle, or frees pages beyond the file, until the
	// process has no memory left. Open finds that; it takes a disk that changes a page
	// which the system reads again while the store is open. From a wrong key bbolt can
	// make the circle itself, when it writes.
	circles = "not asked: bbolt would end the process"
)

// original is a store with records of every state in three files, which is damaged
// in copies.
type original struct {
	t     *testing.T
	files map[string][]byte
	want  map[driver.ID]driver.Record // the zero Record: forgotten
	opts  Options
}

func newOriginal(t *testing.T) *original {
	t.Helper()
	b := newBench(t, Options{RollBytes: 1 << 20})
	const keys = 240
	ids := make([]driver.ID, keys)
	tokens := make([]driver.Token, keys)
	each := func(of, n int, op func(i int) driver.Op) {
		t.Helper()
		var ops []driver.Op
		for i := n; i < keys; i += of {
			ops = append(ops, op(i))
		}
		for j, r := range b.apply(ops...) {
			if r.Status != driver.StatusGranted && r.Status != driver.StatusOK {
				t.Fatalf("%v: got %v", ops[j].Kind, r.Status)
			}
			tokens[n+j*of] = r.Record.Token
		}
	}
	settle := func(kind driver.OpKind) func(int) driver.Op {
		return func(i int) driver.Op {
			return driver.Op{Kind: kind, ID: ids[i], Token: tokens[i], TTL: day, Result: fmt.Append(nil, "result ", i)}
		}
	}
	for i := range ids {
		ids[i] = key("original", i)
	}
	each(1, 0, func(i int) driver.Op { return claim1(ids[i], 1) })
	each(4, 0, settle(driver.OpComplete))
	each(4, 1, settle(driver.OpRelease))
	b.nextFile()
	each(8, 1, func(i int) driver.Op { return claim1(ids[i], 2) }) // released before
	each(4, 2, settle(driver.OpPark))
	if err := b.Forget(t.Context(), []driver.ID{ids[0], ids[100], ids[6], ids[106]}); err != nil {
		t.Fatal(err)
	}
	b.nextFile()
	each(8, 1, settle(driver.OpComplete))
	each(8, 5, func(i int) driver.Op { return claim1(ids[i], 3) })
	b.fill("more", 200, day)
	o := &original{t: t, files: make(map[string][]byte), want: make(map[driver.ID]driver.Record), opts: b.opts}
	b.crash()
	for i := range ids {
		o.want[ids[i]] = b.find(ids[i])
		o.want[key("more", i)] = b.find(key("more", i))
	}
	closeStore(t, b.Store)
	for _, n := range b.numbers() {
		data, err := os.ReadFile(filepath.Join(b.dir, fileName(n)))
		if err != nil {
			t.Fatal(err)
		}
		o.files[fileName(n)] = data
	}
	b.open()
	return o
}

func (b *bench) find(id driver.ID) driver.Record {
	b.t.Helper()
	r, err := b.Lookup(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// corruption is one case.
type corruption struct {
	*original
	t    *testing.T
	rng  *rand.Rand
	dir  string
	what string
	path string // of the damaged file

	flipped   bool // one bit, and that is all
	placeless int  // errors that say no place in it
}

// run makes a copy of the original, damages it while it is open or not, and asks
// for everything.
func (c *corruption) run(open bool) (outcome string) {
	c.fill()
	undo := c.damage()
	var s *Store
	var err error
	if open {
		if c.flipped && c.misleads() {
			return circles
		}
		redo := undo()
		if s, err = Open(c.dir, &c.opts); err != nil {
			c.t.Fatal(err)
		}
		redo()
	} else if s, err = Open(c.dir, &c.opts); err != nil {
		c.wantDamage("Open", err)
		return refused
	}
	want := maps.Clone(c.want)
	failed := c.lookUp(s, want) + c.claim(s, want) + c.lookUp(s, want)
	if err := s.Close(); err != nil {
		c.wantDamage("Close", err)
		failed++
	}
	// What was answered holds from one Open to the next.
	s, err = Open(c.dir, &c.opts)
	if err != nil {
		c.wantDamage("Open again", err)
		failed++
	} else {
		for id, r := range want { // its holder is gone
			r.LeaseEnd = time.Time{}
			want[id] = r
		}
		failed += c.lookUp(s, want)
		closeStore(c.t, s)
	}
	if failed == 0 {
		return harmless
	}
	return answered
}

// misleads reports whether bbolt could go round in circles: in a file that is only
// read, by a page that leads back; in the newest, if the damage is to what bbolt goes
// by, and not to what stands in the entries.
func (c *corruption) misleads() bool {
	if filepath.Base(c.path) != slices.Max(slices.Collect(maps.Keys(c.files))) {
		err := checkPages(c.path)
		return err != nil && strings.Contains(err.Error(), "two ways")
	}
	s, err := Open(c.dir, &c.opts)
	if err == nil {
		closeStore(c.t, s)
		return false
	}
	return !errors.Is(err, errChecksum) && !errors.Is(err, errBody)
}

// fill makes a copy of the original.
func (c *corruption) fill() {
	err := os.Mkdir(c.dir, 0o700)
	for name, data := range c.files {
		err = errors.Join(err, os.WriteFile(filepath.Join(c.dir, name), data, 0o600))
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// damage changes a file: at any place, or at one on which the structure of the file
// depends. It returns what takes that back, which returns what does it again.
func (c *corruption) damage() (undo func() (redo func())) {
	name := slices.Sorted(maps.Keys(c.files))[c.rng.IntN(len(c.files))]
	c.path = filepath.Join(c.dir, name)
	data := slices.Clone(c.files[name])
	page := os.Getpagesize()
	used := len(bytes.TrimRight(data, "\x00")) // the rest is for later
	at := c.rng.IntN(used)
	start := at / page * page
	size := len(data)
	switch c.rng.IntN(8) {
	case 0:
		size = at
		c.what = fmt.Sprintf("%s cut off at %d", name, size)
	case 1:
		clear(data[start:min(start+page, size)])
		c.what = fmt.Sprintf("%s with the page at %d zeroed", name, start)
	case 2, 3, 4: // the header of a page, and the first of its elements
		at = start + c.rng.IntN(64)
		fallthrough
	default:
		c.flipped = true
		bit := c.rng.IntN(8)
		data[at] ^= 1 << bit
		c.what = fmt.Sprintf("%s with bit %d at %d flipped", name, bit, at)
	}
	redo := func() { c.write(data, size) }
	redo()
	return func() func() {
		c.write(c.files[name], len(data))
		return redo
	}
}

// write writes data over the file, and then cuts it off at size.
func (c *corruption) write(data []byte, size int) {
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	_, err = f.WriteAt(data, 0)
	if err := errors.Join(err, f.Truncate(int64(size)), f.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// lookUp wants every key as it is, or an error; it returns how many of these.
func (c *corruption) lookUp(s *Store, want map[driver.ID]driver.Record) (failed int) {
	for id, w := range want {
		r, err := s.Lookup(c.t.Context(), id)
		if err != nil {
			c.wantDamage("Lookup", err)
			failed++
			continue
		}
		if w.State == driver.StateClaimed && w.LeaseEnd.IsZero() {
			r.LeaseEnd = time.Time{}
		}
		if !same(&r, &w) {
			c.t.Errorf("%s: Lookup: got %+v, want %+v", c.what, r, w)
		}
	}
	return failed
}

// claim claims every key and wants the right answers, or errors; what is answered
// goes into want, and what is not leaves it.
func (c *corruption) claim(s *Store, want map[driver.ID]driver.Record) (failed int) {
	ids := slices.SortedFunc(maps.Keys(want), func(a, b driver.ID) int { return strings.Compare(string(a[:]), string(b[:])) })
	for ids := range slices.Chunk(ids, 80) {
		var ops []driver.Op
		for _, id := range ids {
			ops = append(ops, driver.Op{Kind: driver.OpClaim, ID: id, Nonce: 77, Lease: lease, TTL: day, Position: position})
		}
		replies, err := s.Apply(c.t.Context(), ops)
		if err != nil {
			c.wantDamage("Apply", err)
			for _, id := range ids {
				delete(want, id)
			}
			failed++
			continue
		}
		for i, r := range replies {
			id := ids[i]
			if r.Err != nil {
				c.wantDamage("claim", r.Err)
				delete(want, id)
				failed++
				continue
			}
			record, reply := driver.Step(want[id], ops[i], s.clock.now(), r.Record.Token)
			if reply.Status != r.Status || !same(&reply.Record, &r.Record) {
				c.t.Errorf("%s: claim: got %v, %+v, want %v, %+v", c.what, r.Status, r.Record, reply.Status, reply.Record)
			}
			want[id] = record
		}
	}
	return failed
}

// wantDamage wants an error that says what is damaged, and where.
func (c *corruption) wantDamage(what string, err error) {
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrPoisoned) || !strings.Contains(err.Error(), c.path) {
		c.t.Errorf("%s: %s: got error %q, want one that names %s", c.what, what, err, c.path)
	}
	var fault runtime.Error
	if strings.Contains(err.Error(), "runtime error") || strings.Contains(err.Error(), "\n") || (errors.As(err, &fault) && strings.Contains(err.Error(), fault.Error())) {
		c.t.Errorf("%s: %s: got error %q, want one line, and none of the runtime's words", c.what, what, err)
	}
	var damage *DamageError
	if errors.As(err, &damage) && damage.Sequence == 0 && damage.Offset < 0 {
		c.placeless++
	}
}
