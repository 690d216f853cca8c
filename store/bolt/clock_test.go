package boltstore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// jumpClock tells the time as time.Now does on a machine whose wall clock is set:
// how much has passed between two of its times is right all the same.
type jumpClock struct {
	mu   sync.Mutex
	true time.Time // with a monotonic reading
	off  time.Duration
	boot byte
	up   time.Time // since then
}

func (c *jumpClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return jumped(c.true, c.off)
}

func (c *jumpClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.true = c.true.Add(d)
}

func (c *jumpClock) reboot() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.boot, c.up = c.boot+1, c.true
}

func (c *jumpClock) uptime() uptime {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uptime{[16]byte{c.boot}, c.true.Sub(c.up)}
}

func (c *jumpClock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

// jumped returns t as it would be had the wall clock been set by whole seconds. The
// time package has no way to do that, so it reaches for the 33 bits of seconds in
// front of the 30 of nanoseconds; TestJumpClock looks whether they are there.
func jumped(t time.Time, d time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(int64(d/time.Second)) << 30
	return t
}

func TestJumpClock(t *testing.T) {
	now := time.Now()
	for _, d := range []time.Duration{0, time.Hour, -3 * day} {
		if got := jumped(now, d); got.Sub(now) != 0 || got.Round(0).Sub(now.Round(0)) != d {
			t.Errorf("a jump of %v: got %v after %v: the layout of time.Time is another", d, got, now)
		}
	}
}

func TestClockJumps(t *testing.T) {
	t.Parallel()
	testClockJumps(t, 4)
}

// testClockJumps sets the wall clock at random points, also while the store is
// closed or after a crash. All answers follow from the time that has passed while
// the store was open:
//
//   - No lease that ended lives again, and tokens grow.
//   - No record is forgotten before its TTL has passed, except when the wall clock
//     was set forward before the store was opened again, and the system was started
//     anew: nothing tells that from a long pause. What comes again is Stale then,
//     unless the wall clock was slow when it was recorded.
//   - No key is stuck: a lease ends, and a record expires, when as much time as it
//     was given has passed.
func testClockJumps(t *testing.T, cases int) {
	seed, _ := seeds(t)
	forgotten := 0
	for i := range cases {
		c := &clockCase{t: t, rng: rand.New(rand.NewPCG(seed, uint64(i))), clock: &jumpClock{true: time.Now()}, keys: make([]clockKey, 12)}
		c.bench = &bench{t: t, dir: t.TempDir(), hash: hashID, opts: Options{Now: c.clock.Now, uptime: c.clock.uptime, RollBytes: 1 << 20}}
		c.clock.reboot()
		c.open()
		c.last = c.Store.clock.now()
		for n := range 150 {
			c.step()
			if t.Failed() {
				closeStore(t, c.Store)
				t.Fatalf("seed %d, case %d, step %d: %s", seed, i, n, c.what)
			}
		}
		c.finish()
		forgotten += c.forgotten
		closeStore(t, c.Store)
	}
	t.Logf("%d cases, %d records forgotten early, all as said", cases, forgotten)
}

const clockTTL = day

type clockCase struct {
	*bench
	t         *testing.T
	rng       *rand.Rand
	clock     *jumpClock
	keys      []clockKey
	last      time.Time // store time, as it must be now
	written   time.Time // store time of the last write
	high      driver.Token
	forward   int // times that store time was ahead after an Open
	forgotten int
	what      string
}

// clockKey is what is known of a key.
type clockKey struct {
	record   driver.Record
	recorded time.Time // store time
	true     time.Time // then
	forward  int       // as in clockCase
}

// step does one random thing.
func (c *clockCase) step() {
	jumps := []time.Duration{-3 * day, -time.Hour, time.Hour, 3 * day}
	passes := []time.Duration{time.Millisecond, lease / 2, lease, time.Hour, 5 * time.Hour, day / 2}
	jump, pass := jumps[c.rng.IntN(len(jumps))], passes[c.rng.IntN(len(passes))]
	switch c.rng.IntN(20) {
	case 0, 1:
		c.what = fmt.Sprintf("the wall clock jumps by %v", jump)
		c.clock.jump(jump)
	case 2, 3, 4:
		c.what = fmt.Sprintf("%v pass", pass)
		c.clock.advance(pass)
		c.last = c.last.Add(pass)
	case 5:
		c.what = "tend"
		c.tend()
	case 6:
		crash, reboot := c.rng.IntN(2) == 0, c.rng.IntN(2) == 0
		if c.rng.IntN(2) == 0 {
			jump = 0
		}
		if c.rng.IntN(2) == 0 {
			pass = 0
		}
		c.what = fmt.Sprintf("reopened, after a crash: %v, and a reboot: %v; meanwhile %v pass, and the wall clock jumps by %v", crash, reboot, pass, jump)
		c.reopenAt(pass, jump, crash, reboot)
	default:
		c.op()
	}
	if now := c.Store.clock.now(); !now.Equal(c.last) {
		c.t.Errorf("%s: store time is %v, want %v", c.what, now, c.last)
	}
}

// reopenAt opens the store again; time passes and the wall clock jumps while it is
// closed.
func (c *clockCase) reopenAt(pass, jump time.Duration, crash, reboot bool) {
	from := c.dir
	if crash {
		from = c.copy()
	}
	closeStore(c.t, c.Store)
	c.dir = from
	c.clock.jump(jump)
	c.clock.advance(pass)
	if reboot {
		c.clock.reboot()
	}
	c.open()
	now := c.Store.clock.now()
	least, right := c.last, c.last.Add(pass)
	if crash {
		least = c.written // nothing tells how long it was idle
	}
	switch wall := c.clock.Now().Round(0); {
	case !reboot && !now.Equal(right):
		c.t.Errorf("%s: store time is %v, want %v", c.what, now, right)
	case now.Before(least) || now.After(least) && now.After(wall) && now.After(right):
		c.t.Errorf("%s: store time is %v, want it to be at least %v, and else that of the wall clock, %v", c.what, now, least, wall)
	}
	if now.After(right) {
		c.forward++
	}
	expired := c.last
	c.last = now
	for i := range c.keys {
		k := &c.keys[i]
		if !k.record.Expires.After(expired) {
			k.record = c.find(key("k", i))
		}
		if k.record.State != driver.StateClaimed {
			continue
		}
		if k.record.LeaseEnd.After(now) {
			k.record.LeaseEnd = now
		}
		// A crash may take the last renewals with it.
		r := c.find(key("k", i))
		if r.State == driver.StateClaimed && (r.LeaseEnd.After(now) || r.Token != k.record.Token || k.record.Expires.Sub(r.Expires) > clockTTL/8) {
			c.t.Errorf("%s: the claim %+v became %+v", c.what, k.record, r)
		}
		if r.State == driver.StateFree && k.record.Expires.Sub(now) > clockTTL/8 {
			c.t.Errorf("%s: the claim %+v was forgotten at %v", c.what, k.record, now)
		}
		k.record = r
	}
}

// op carries out an op on a key and wants the answer that follows from store time.
func (c *clockCase) op() {
	i := c.rng.IntN(len(c.keys))
	k := &c.keys[i]
	op := driver.Op{ID: key("k", i), Token: k.record.Token, Lease: lease, TTL: clockTTL, Nonce: c.rng.Uint64() | 1, Position: position}
	op.Kind = []driver.OpKind{driver.OpClaim, driver.OpClaim, driver.OpExtend, driver.OpComplete, driver.OpRelease}[c.rng.IntN(5)]
	if op.Kind == driver.OpComplete {
		op.Result = []byte("result")
		if op.Token == 0 {
			return // nobody completes what was never claimed
		}
	}
	c.what = fmt.Sprintf("%v of key %d at %v", op.Kind, i, c.last)
	before := *k
	r := c.apply(op)[0]
	want, reply := driver.Step(k.record, op, c.last, r.Record.Token)
	if r.Status != reply.Status || !same(&r.Record, &reply.Record) {
		c.t.Errorf("%s: got %v, %+v, want %v, %+v", c.what, r.Status, r.Record, reply.Status, reply.Record)
	}
	if want.State != driver.StateFree && !same(&want, &k.record) && op.Kind != driver.OpExtend {
		c.written = c.last
		k.recorded, k.true, k.forward = c.last, c.clock.true, c.forward
	}
	if want.State != driver.StateFree { // else it expired, and may not have after a crash
		k.record = want
	}
	if op.Kind != driver.OpClaim || r.Status != driver.StatusGranted {
		return
	}
	if r.Record.Token <= c.high {
		c.t.Errorf("%s: got token %d, and %d was issued", c.what, r.Record.Token, c.high)
	}
	c.high = r.Record.Token
	if before.record.State == driver.StateDone && r.Record.FirstSeen.Equal(c.last) && c.clock.true.Sub(before.true) < clockTTL {
		c.forgotEarly(before, r.Record)
	}
}

// forgotEarly wants a record that was forgotten before its time to be one that the
// wall clock excuses, and its message to be Stale if it comes again.
func (c *clockCase) forgotEarly(k clockKey, again driver.Record) {
	c.forgotten++
	if c.forward == k.forward {
		c.t.Errorf("%s: a record was forgotten after %v of %v, and store time did not jump", c.what, c.clock.true.Sub(k.true), clockTTL)
	}
	v, err := c.Vouch(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	known := again.FirstSeen.Add(-clockTTL)
	if v.Since.After(known) {
		known = v.Since
	}
	// Published at the latest when it was recorded, by a clock that is right.
	if published := k.true.Round(0); !k.recorded.Before(published) && published.After(known) {
		c.t.Errorf("%s: a message of %v would not be Stale: the store vouches since %v", c.what, published, known)
	}
}

// finish wants every key free once all leases and TTLs have passed.
func (c *clockCase) finish() {
	c.clock.advance(lease + time.Nanosecond)
	for i := range c.keys {
		if r := c.apply(claim1(key("k", i), 1))[0]; r.Status == driver.StatusHeld {
			c.t.Errorf("at the end: key %d is stuck, held by %+v", i, r.Record)
		}
	}
	c.clock.advance(clockTTL + lease)
	c.tend()
	for i := range c.keys {
		c.lookup(key("k", i), driver.StateFree)
	}
}

// A system that comes up with a clock that is behind, and is set right: whatever the
// store goes by then, what it has forgotten is flagged.
func TestForgottenIsStaleWhereStoreTimeIsBehind(t *testing.T) {
	c := &jumpClock{true: time.Now(), off: -2 * day}
	c.reboot()
	b := &bench{t: t, dir: t.TempDir(), hash: hashID, opts: Options{Now: c.Now, uptime: c.uptime}}
	b.open()
	defer func() { closeStore(t, b.Store) }()
	c.jump(2 * day)
	b.reopen()
	c.advance(10 * day)
	published := c.Now().Round(0)
	k := key("k", 0)
	b.want(complete1(k, b.want(claim1(k, 1), driver.StatusGranted).Token, day), driver.StatusOK)
	since := func() time.Time {
		v, err := b.Vouch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v.Since
	}
	if got := since(); !published.After(got) {
		t.Errorf("a message of now: got since %v, after it was published at %v", got, published)
	}
	c.advance(25 * time.Hour)
	b.lookup(k, driver.StateFree)
	if got := since(); !got.After(published) {
		t.Errorf("a message of %v whose record has gone: got since %v, want it flagged", published, got)
	}
}
