package boltstore

import (
	"bytes"
	"errors"
	"math/bits"
	"slices"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// What a batch keeps for the next one to encode its entries in, in bytes, twice.
const maxArena = 1 << 20

// batch is what the writer does at one time: it reads records, changes them in
// memory, appends the newest of each key in one transaction, and makes the
// changes visible only when that is on disk.
type batch struct {
	s       *Store
	now     time.Time
	high    driver.Token
	memory  horizon.Horizon
	full    error     // why no new claim is taken in
	changes []*change // in the order in which the keys came
	results int       // bytes of them that came with the keys
	view    view

	// Scratch, kept from batch to batch.
	slab   []change
	table  []int32 // of load
	ops    []*change
	places []place
	seqs   []uint64
	entry  []byte
	packer packer
}

// place is where the record of a key can be.
type place struct {
	c   *change
	seq uint64
}

// change is what a batch does to one key, and how the key stands with that.
type change struct {
	id driver.ID
	standing
	held    *standing // what the store holds of the key in memory
	prev    uint64    // sequence number of the record that is replaced; 0: none
	err     error     // the record could not be read
	hash    uint64
	known   bool // the key may have a record
	changed bool // in memory
	append  bool // in the log
}

// rewrite has the record appended again, as it is.
func (c *change) rewrite() { c.changed, c.append = true, true }

// newBatch starts a batch. The caller has the right to write.
func (s *Store) newBatch() *batch {
	b := &s.batch
	b.s = s
	s.mu.Lock()
	b.now, b.high, b.memory = s.clock.now(), s.high, s.memory
	s.mu.Unlock()
	return b
}

// end forgets everything, the callers' results included, but the room it took.
func (b *batch) end() {
	b.closeView()
	b.full, b.results = nil, 0
	clear(b.changes)
	clear(b.slab)
	clear(b.ops)
	clear(b.places)
	b.packer.clear()
	b.changes, b.slab, b.ops = b.changes[:0], b.slab[:0], b.ops[:0]
	b.places, b.seqs = b.places[:0], b.seqs[:0]
	if cap(b.entry) > maxArena {
		b.entry = nil
	}
}

// add adds a key to the batch, as it stands, and as it is held in memory.
func (b *batch) add(id driver.ID, at standing, held *standing) *change {
	if len(b.slab) == cap(b.slab) {
		b.slab = make([]change, 0, max(64, 2*cap(b.slab))) // the old one lives on in b.changes
	}
	b.slab = append(b.slab, change{id: id, hash: b.s.hash(id), standing: at, held: held})
	c := &b.slab[len(b.slab)-1]
	b.results += len(at.record.Result)
	b.changes = append(b.changes, c)
	return c
}

// load returns the batch's own view of n keys, in the order of their IDs, once for
// a batch that has none. What it returns stays valid until the batch ends.
func (b *batch) load(n int, id func(i int) driver.ID) []*change {
	// A table with linear probing, since it is filled anew for each batch: a map takes
	// several times as long.
	size := 1 << bits.Len(uint(2*n))
	b.table = append(b.table[:0], make([]int32, size)...) // places in b.changes, from 1 on
	for i := range n {
		id := id(i)
		at := int(hashID(id)) & (size - 1)
		for b.table[at] != 0 && b.changes[b.table[at]-1].id != id {
			at = (at + 1) & (size - 1)
		}
		if b.table[at] == 0 {
			b.add(id, standing{}, nil)
			b.table[at] = int32(len(b.changes))
		}
		b.ops = append(b.ops, b.changes[b.table[at]-1])
	}
	b.find()
	for i, p := range b.places {
		if p.c.err != nil || p.c.seq != 0 {
			continue
		}
		e, err := b.view.get(p.seq)
		switch {
		case err != nil:
			p.c.err = err
		case e.id == p.c.id:
			p.c.standing = standing{record: b.s.lapsed(e.record), seq: p.seq, stored: e.record.Expires}
		}
		b.places[i] = place{}
	}
	b.places = b.places[:0]
	return b.ops
}

// find looks up the keys of the batch. It asks the index in two rounds: the processor
// then has many of its far memory accesses under way at a time.
func (b *batch) find() {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range b.changes {
		c.known = s.index.may(c.hash)
	}
	for _, c := range b.changes {
		if h := s.held[c.id]; h != nil {
			c.standing, c.held = *h, h
			continue
		}
		if !c.known {
			continue
		}
		b.seqs = s.index.find(b.seqs[:0], c.hash)
		for _, seq := range b.seqs {
			b.view.pin(s.fileOf(seq))
			b.places = append(b.places, place{c, seq})
		}
	}
}

// step carries out one op, on the key c, and fills in its reply. Records are large, so
// few copies are made of them.
func (b *batch) step(op *driver.Op, c *change, reply *driver.Reply) {
	if c.err != nil {
		*reply = driver.Reply{Err: c.err}
		return
	}
	_, *reply = driver.Step(c.record, *op, b.now, driver.NextToken(b.high, op.Floor, b.now))
	if reply.Err != nil {
		return
	}
	after := &reply.Record // the one that Step returns beside it
	changed := !same(after, &c.record)
	if b.full != nil && op.Kind == driver.OpClaim && reply.Status == driver.StatusGranted && changed {
		*reply = driver.Reply{Err: b.full}
		return
	}
	if op.Kind != driver.OpExtend {
		b.memory.See(op.TTL, b.now)
	}
	b.high = max(b.high, after.Token)
	// A record that expired is as good as none, and needs no word in the log.
	if changed && after.State != driver.StateFree {
		c.append = c.append || op.Kind != driver.OpExtend || !bytes.Equal(after.Note, c.record.Note)
		c.record, c.changed = *after, true
		c.record.Note = bytes.Clone(after.Note) // it is held in memory longer than op
	}
	after.Result, after.Note = bytes.Clone(after.Result), bytes.Clone(after.Note)
}

// write appends what is to be appended and makes the changes visible. An error
// that matches ErrPoisoned leaves it open what is on disk; after any other one,
// such as ErrFull, nothing has happened.
func (b *batch) write() error {
	b.closeView()
	if b.memory != b.s.memory || slices.ContainsFunc(b.changes, func(c *change) bool { return c.append }) {
		if err := b.append(); err != nil {
			return err
		}
	}
	b.publish()
	return nil
}

// append writes the changed records to the newest file. What the store says of
// its memory comes before them if it changed, so no record is on disk without the
// TTL that it was made with.
func (b *batch) append() error {
	f, err := b.s.writable(b.now)
	if err != nil {
		return err
	}
	known := f.sources.Load()
	p := &b.packer
	p.next = b.s.last + 1       // only the writer changes it
	if b.memory != b.s.memory { // likewise, only the writer changes it
		b.entry = appendState(b.entry[:0], p.next, &state{id: b.s.id, file: f.number, time: b.now, memory: b.memory, high: b.high, up: b.s.clock.uptime()})
		p.add(b.entry)
	}
	for _, c := range b.changes {
		if !c.append {
			continue
		}
		name := c.record.First.Source
		source := f.numbers[name]
		if source == 0 && name != "" {
			if source = f.nextSource(); source != 0 {
				f.addSource(source, name)
				b.entry = appendSource(b.entry[:0], p.next, source, name)
				p.add(b.entry)
			}
		}
		c.prev, c.seq = c.seq, p.next
		e := entry{id: c.id, prev: c.prev, written: b.now, record: c.record}
		b.entry = appendEntry(b.entry[:0], f.base, source, p.next, &e)
		p.add(b.entry)
	}
	err = b.s.appendTo(f, p)
	if err != nil {
		f.forgetSources(known)
	}
	return err
}

// publish makes the changes visible: they are on disk. It goes to the index in two
// rounds, as find does: what find fetched is out of the processor's caches by now.
func (b *batch) publish() {
	s := b.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.high, s.memory = max(s.high, b.high), b.memory
	for _, c := range b.changes {
		c.known = s.index.may(c.hash)
	}
	for _, c := range b.changes {
		if !c.changed {
			continue
		}
		if c.append {
			s.reindex(c)
		}
		s.hold(c)
	}
}

// reindex makes the index name the record that was appended for c. The caller
// holds mu.
func (s *Store) reindex(c *change) {
	replaced := false
	if c.record.State == driver.StateFree {
		replaced = s.index.remove(c.hash, c.prev)
	} else {
		replaced = s.index.put(c.hash, c.prev, c.seq)
		x := &s.fileOf(c.seq).expiries
		x.add(x.stepOf(c.record.Expires))
	}
	if replaced {
		x := &s.fileOf(c.prev).expiries
		x.replaced(x.stepOf(c.stored))
	}
	c.stored = c.record.Expires
}

// hold keeps the claims of this process in memory, where they are renewed. The
// caller holds mu.
func (s *Store) hold(c *change) {
	h := c.held // only the writer changes which there are
	if c.record.State != driver.StateClaimed || c.record.Token <= s.boot {
		if h != nil {
			delete(s.held, c.id)
			s.unused = append(s.unused, h)
		}
		return
	}
	if h == nil || h.record.Token != c.record.Token {
		if h == nil {
			h = s.newStanding()
			s.held[c.id] = h
		}
		*h = standing{record: c.record, beside: c.beside}
	}
	// What renewed it since the batch read it comes after the batch.
	overtaken := h.beside != c.beside
	if !overtaken {
		h.record = c.record
	}
	h.record.Note = c.record.Note // which is changed by the writer alone
	h.seq, h.stored = c.seq, c.stored
	h.renewed = overtaken || !c.append
}

// newStanding returns one that is not in use: one is taken for each message, and
// few are held at a time. The caller holds mu.
func (s *Store) newStanding() *standing {
	if len(s.unused) == 0 {
		return new(standing)
	}
	h := s.unused[len(s.unused)-1]
	s.unused = s.unused[:len(s.unused)-1]
	return h
}

// closeView ends the reading, which would keep the writer waiting.
func (b *batch) closeView() {
	if err := b.view.close(); err != nil {
		b.s.log.Error("close a dropped file", "dir", b.s.dir, "err", err)
	}
}

// appendTo writes what p has to f in one transaction and counts the sequence on. It
// returns when that is on disk. An error that matches ErrFull left everything as
// it was; after any other one nobody knows, and the store is poisoned.
func (s *Store) appendTo(f *file, p *packer) error {
	p.finish()
	txid := 0
	err := guarded(func() error {
		tx, err := f.begin(true)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback() }() // if there was no Commit, or bbolt panics in it
		txid = tx.ID()
		f.size.Store(tx.Size())
		if err := s.space.secure(f, tx.Size()+roomForValues(p.values), false); err != nil {
			return err
		}
		if err := put(tx.Bucket(bucketName), p.values, p.next-1); err != nil {
			return err
		}
		return s.commit(tx)
	})
	switch {
	case err == nil:
	case errors.Is(err, ErrFull):
		return err
	case unwritten(f, txid, err):
		return s.space.full(roomForValues(p.values), err)
	default:
		return s.poison(f.path, err)
	}
	s.mu.Lock()
	s.last = p.next - 1
	s.mu.Unlock()
	return nil
}

// writable returns the file to append to: a new one if the newest is large or
// old enough, and the disk has room for it.
func (s *Store) writable(now time.Time) (*file, error) {
	f := s.newest()
	large := f.size.Load() >= s.options.RollBytes
	old := now.Sub(f.base) >= s.options.RollAge && f.expiries.total > 0
	if large || old {
		next, err := s.roll(now)
		if !errors.Is(err, ErrFull) {
			return next, err
		}
	}
	return f, nil
}

// roll starts a new file. The caller has the right to write.
func (s *Store) roll(now time.Time) (*file, error) {
	s.mu.Lock()
	old := s.files[len(s.files)-1]
	st := state{id: s.id, file: old.number + 1, time: now, memory: s.memory, high: s.high, up: s.clock.uptime()}
	first := s.last + 1
	s.mu.Unlock()
	f, err := createFile(&s.space, first, &st, &s.options)
	if errors.Is(err, ErrFull) && s.idle() && s.space.handOver(old) {
		f, err = createFile(&s.space, first, &st, &s.options)
	}
	if err != nil {
		_ = s.space.secure(old, old.size.Load()+s.space.reserve, false) // if it was handed over
		return nil, err
	}
	if err := s.space.trim(old); err != nil {
		s.log.Warn("a full file keeps room on disk that it does not need", "file", old.path, "err", err)
	}
	s.mu.Lock()
	s.files = append(s.files, f)
	s.last = first
	s.mu.Unlock()
	return f, nil
}

// idle reports whether nothing runs that is still to be settled. Until then no part
// of the reserve is given up on a full disk, not for a moment: whatever else fills
// the disk may take it.
func (s *Store) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held) == 0
}

func (s *Store) newest() *file {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[len(s.files)-1]
}
