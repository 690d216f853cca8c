package redisstore

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
)

// Store keeps records on Redis. It implements [driver.Store], [driver.Pipelined] and
// [driver.Inspector]. It need not be closed, and starts no goroutine that outlives a call.
// The client belongs to the caller.
type Store struct {
	o       Options
	nodes   nodes
	lua     *scripts
	now     func() time.Time // the local clock
	sources sources
	health  health

	mu      sync.Mutex
	ledger  *ledger              // as last seen; nil: not read yet
	read    time.Time            // when, by the local clock
	since   time.Time            // raised by this process; never falls
	met     map[incarnation]bool // whether the ledger knows them
	heard   time.Time            // when a server that was met last answered, by its clock
	sampled time.Time            // the server's time
	at      time.Time            // and the local one, when it was told
	high    atomic.Uint64        // greatest token seen
}

var (
	_ driver.Store     = (*Store)(nil)
	_ driver.Pipelined = (*Store)(nil)
)

// New returns a store that uses client: a *redis.Client for one server or for Sentinel, or a
// *redis.ClusterClient. o may be nil. New does not talk to the server: [Store.Check] does, or
// else the first Apply. Close the client only after the store's last use.
func New(client redis.UniversalClient, o *Options) (*Store, error) {
	filled, err := o.filled()
	if err != nil {
		return nil, err
	}
	n, err := newNodes(client)
	if err != nil {
		return nil, err
	}
	s := &Store{o: filled, nodes: n, lua: lua, now: time.Now, met: make(map[incarnation]bool)}
	s.sources.init()
	s.health = health{grace: filled.Timeout, logger: filled.Logger, down: make(map[string]*outage)}
	return s, nil
}

// Applies implements [driver.Pipelined].
func (s *Store) Applies() int { return s.o.Applies }

// Check returns an error if a server does not answer, is older than Redis 7, or may evict
// keys. Apply checks the same, and then fails as a store that does not answer.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	return s.greet(ctx, true)
}

// Apply implements [driver.Store].
func (s *Store) Apply(ctx context.Context, ops []driver.Op) ([]driver.Reply, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(ops) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience(ops))
	defer cancel()
	if err := s.ready(ctx, ops); err != nil {
		return nil, err
	}
	return s.pack(ctx, ops).apply(ctx), nil
}

// minPatience is how long renewals are tried, however short their leases.
const minPatience = 250 * time.Millisecond

// patience is how long Apply tries. Renewals give up earlier: there is to be time
// for another try before the leases end.
func (s *Store) patience(ops []driver.Op) time.Duration {
	d := s.o.Timeout
	for i := range ops {
		if ops[i].Kind != driver.OpExtend {
			return s.o.Timeout
		}
		d = min(d, max(ops[i].Lease/4, minPatience))
	}
	return d
}

// refresh is how old the ledger may be.
const refresh = 10 * time.Second

// ready makes sure that the ledger was read, not too long ago, and knows of the
// TTLs.
func (s *Store) ready(ctx context.Context, ops []driver.Op) error {
	var ttl time.Duration
	for i := range ops {
		if ops[i].Kind != driver.OpExtend {
			ttl = max(ttl, roundUp(ops[i].TTL))
		}
	}
	s.mu.Lock()
	known := s.ledger != nil
	longer := known && ttl.Milliseconds() > s.ledger.TTL
	old := known && ttl > 0 && s.now().Sub(s.read) > refresh // leases do not wait for it
	if old {
		s.read = s.now() // one caller is enough
	}
	s.mu.Unlock()
	switch {
	case !known:
		if err := s.greet(ctx, false); err != nil {
			return err
		}
		return s.ready(ctx, ops)
	case longer:
		// Before the first of such records is made. In their order: each moves the horizon.
		return s.update(ctx, func(l *ledger, now time.Time) bool {
			before := l.TTL
			for i := range ops {
				if ops[i].Kind != driver.OpExtend {
					l.see(ops[i].TTL, now)
				}
			}
			return l.TTL != before
		})
	case old:
		// What cannot be read now is read later: the servers' incarnations, which
		// the answers name, guard the records meanwhile.
		brief, cancel := context.WithTimeout(ctx, s.o.Timeout/4)
		defer cancel()
		_ = s.update(brief, s.raiseToken)
	}
	return nil
}

// raiseToken notes the greatest token seen, some time ahead, so that the ledger
// need not be written for each.
func (s *Store) raiseToken(l *ledger, _ time.Time) bool {
	high := driver.Token(s.high.Load())
	if high <= l.Token {
		return false
	}
	l.Token = high
	return true
}

// keep remembers a ledger. What it says of the past stays, even if one that was
// read earlier is kept later.
func (s *Store) keep(l *ledger) {
	s.saw(l.Token)
	s.mu.Lock()
	lost := s.ledger != nil && s.ledger.ID != l.ID
	s.ledger, s.read = l, s.now()
	s.raise(l.horizon().At(s.timeLocked()))
	since := s.since
	s.mu.Unlock()
	if lost {
		s.sources.forget()
		s.o.Logger.Warn("the store's key in Redis was gone and is made anew, so its records may be gone too: messages published before that count as stale where no record is found", "since", since)
	}
}

// raise moves Since up, never down. The caller holds mu.
func (s *Store) raise(to time.Time) {
	if to.After(s.since) {
		s.since = to
	}
}

func (s *Store) saw(t driver.Token) {
	for {
		old := s.high.Load()
		if old >= uint64(t) || s.high.CompareAndSwap(old, uint64(t)) {
			return
		}
	}
}

// tick notes the server's time.
func (s *Store) tick(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.After(s.timeLocked()) {
		s.sampled, s.at = t, s.now()
	}
}

// time estimates the server's time: of several servers, that of the one ahead.
func (s *Store) time() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.timeLocked()
}

func (s *Store) timeLocked() time.Time {
	if s.sampled.IsZero() {
		return s.sampled
	}
	return s.sampled.Add(s.now().Sub(s.at)).Truncate(time.Millisecond)
}

// Vouch implements [driver.Store]. When a server was replaced, restarted or added, Since
// rises for every process that shares the store, because records from before that moment
// may be gone.
func (s *Store) Vouch(ctx context.Context) (driver.Vouch, error) {
	s.mu.Lock()
	known := s.ledger != nil
	s.mu.Unlock()
	if !known {
		if err := s.Check(ctx); err != nil {
			return driver.Vouch{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raise(s.ledger.horizon().At(s.timeLocked()))
	return driver.Vouch{ID: s.ledger.ID, Since: s.since, Shared: true}, nil
}

// hear notes that a server known to this process has answered.
func (s *Store) hear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = s.timeLocked()
}

// meet takes in servers that answered. One that is new may have lost records, so
// Since is raised before its answers are used. Others may have met it long ago: a
// process that was cut off with the old master counts from what that one last
// answered.
func (s *Store) meet(ctx context.Context, seen ...sighting) error {
	s.mu.Lock()
	unknown, late, heard := false, len(s.met) > 0, s.heard
	for _, x := range seen {
		unknown = unknown || !s.met[x.server]
	}
	s.mu.Unlock()
	if !unknown {
		return nil
	}
	var raised []sighting
	err := s.update(ctx, func(l *ledger, now time.Time) (changed bool) {
		raised = raised[:0]
		for _, x := range seen {
			if now.After(x.at) { // its clock is behind that of another
				x.at = now
			}
			if l.meet(x.server.String(), x.at) {
				changed = true
				if !l.created {
					raised = append(raised, x)
				}
			}
		}
		if late && heard.UnixMilli() > l.Since {
			l.Since, changed = heard.UnixMilli(), true
		}
		return changed
	})
	for _, x := range seen {
		s.mu.Lock()
		_, again := s.met[x.server]
		s.met[x.server] = err == nil
		if err != nil && !again {
			s.raise(x.at) // here at least; the ledger is told later
			s.raise(s.timeLocked())
		}
		s.mu.Unlock()
	}
	if len(raised) > 0 {
		s.sources.forget()
	}
	for _, x := range raised {
		s.o.Logger.Warn("a Redis server was restarted, replaced or added: what it acknowledged before may be lost, so messages published before that time count as stale where no record is found",
			"server", x.addr, "run_id", x.server.run, "since", x.at)
	}
	return err
}
