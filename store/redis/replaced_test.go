package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/redistest"
	"github.com/oncequeue/oncequeue/internal/transporttest"
	redisstore "github.com/oncequeue/oncequeue/store/redis"
)

// TestScriptFlush: scripts that the server has forgotten are loaded again.
func TestScriptFlush(t *testing.T) {
	server := redistest.Run(t)
	s := open(t, server, nil)
	op := claim("a", 1)
	r := granted(t, s, op)
	flushScripts(t, server)
	apply(t, s, complete(op, r.Token), claim("b", 1))
	flushScripts(t, server)
	if got := apply(t, s, op)[0].Status; got != driver.StatusDone {
		t.Errorf("claim: got %v, want done", got)
	}
}

// TestReplacedServer: a server that was replaced raises Since, for every process,
// once, before its answers are used.
func TestReplacedServer(t *testing.T) {
	start := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(start)
	var log logged
	opened := func(o *redisstore.Options) *redisstore.Store {
		s := open(t, server, o)
		s.SetClock(func() time.Time { return start }) // the server's alone moves
		return s
	}
	a, b := opened(&redisstore.Options{Logger: log.logger()}), opened(nil)
	granted(t, a, claim("a", 1))
	granted(t, b, claim("b", 1))
	if got := vouch(t, a).Since; !got.Equal(start) {
		t.Fatalf("Since of a new store: got %v, want %v", got, start)
	}
	server.At(start.Add(time.Hour))
	if got := vouch(t, opened(nil)).Since; !got.Equal(start) {
		t.Errorf("Since for another process: got %v, want %v", got, start)
	}
	server.Replace()
	replaced := start.Add(time.Hour)
	granted(t, a, claim("c", 1))
	if got := vouch(t, a).Since; !got.Equal(replaced) {
		t.Errorf("Since after another server answered: got %v, want %v", got, replaced)
	}
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "stale") {
		t.Errorf("log: got %q, want one warning with what follows", got)
	}
	server.At(start.Add(2 * time.Hour))
	granted(t, a, claim("d", 1))
	granted(t, b, claim("e", 1))
	for _, s := range []*redisstore.Store{a, b, opened(nil)} {
		if got := vouch(t, s).Since; !got.Equal(replaced) {
			t.Errorf("Since an hour later: got %v, want %v", got, replaced)
		}
	}
}

// TestLostLedger: who emptied the database has the store forget, and vouch for no
// more than what came since.
func TestLostLedger(t *testing.T) {
	start := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(start)
	now := start
	s := open(t, server, &redisstore.Options{VouchFrom: start.Add(-time.Hour)})
	s.SetClock(func() time.Time { return now })
	granted(t, s, claim("a", 1))
	before := vouch(t, s)
	if want := start.Add(-time.Hour); !before.Since.Equal(want) {
		t.Fatalf("Since with VouchFrom: got %v, want %v", before.Since, want)
	}
	server.FlushAll()
	now = now.Add(time.Minute)
	server.At(now)
	granted(t, s, claim("a", 2))
	if after := vouch(t, s); !after.Since.Equal(now) || after.ID == before.ID {
		t.Errorf("after the loss: got %+v, want another identity, and Since %v", after, now)
	}
}

// TestTokensOverClockAndRestart: with the record expired, the server's clock set
// back and a new process, a key's tokens still grow.
func TestTokensOverClockAndRestart(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(now)
	s := open(t, server, nil)
	s.SetClock(func() time.Time { return now })
	op := claim("a", 1)
	last := granted(t, s, op)
	for range 2 { // the second claim finds the ledger old
		now = now.Add(2 * time.Hour)
		server.At(now)
		last = granted(t, s, op)
	}
	now = now.Add(2 * time.Hour)
	server.At(now)
	granted(t, s, claim("b", 1)) // tells the ledger
	server.At(now.Add(-24 * time.Hour))
	server.FastForward(time.Hour)
	fresh := open(t, server, nil)
	if got := granted(t, fresh, op); got.Token <= last.Token || got.Attempt != 0 {
		t.Errorf("after the clock was set back by a day: got token %d and attempt %d, want more than %d, and a new record", got.Token, got.Attempt, last.Token)
	}
}

// TestServerAway: while the server is away, operations fail within the time; later
// ones at once, until it is back.
func TestServerAway(t *testing.T) {
	server := redistest.Run(t)
	s := open(t, server, &redisstore.Options{Timeout: time.Second})
	var r driver.Record
	transporttest.Eventually(t, "the claim to be granted", func() bool { // not all are in a second
		replies, err := s.Apply(t.Context(), []driver.Op{claim("a", 1)})
		if err != nil || replies[0].Err != nil {
			return false
		}
		r = replies[0].Record
		return replies[0].Status == driver.StatusGranted
	})
	addr := server.Addr()
	server.Close()
	for _, op := range []driver.Op{claim("b", 1), complete(claim("a", 1), r.Token), {Kind: driver.OpExtend, ID: claim("a", 1).ID, Token: r.Token, Lease: time.Minute, TTL: time.Hour}} {
		replies, err := s.Apply(t.Context(), []driver.Op{op})
		if err != nil {
			t.Fatalf("%v: got error %v, want one for the operation", op.Kind, err)
		}
		wants(t, op.Kind.String(), replies[0].Err, addr)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	transporttest.Eventually(t, "the server to be tried again", func() bool {
		replies, err := s.Apply(t.Context(), []driver.Op{complete(claim("a", 1), r.Token)})
		return err == nil && replies[0].Status == driver.StatusOK
	})
}

// TestLostLedgerThenReplacedServer: a process that makes the store's key anew knows
// what is no new store, and says so.
func TestLostLedgerThenReplacedServer(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(now)
	var log logged
	s := open(t, server, &redisstore.Options{Logger: log.logger()})
	s.SetClock(func() time.Time { return now })
	granted(t, s, claim("a", 1))
	server.FlushAll()
	now = now.Add(time.Minute)
	server.At(now)
	granted(t, s, claim("b", 1))
	if got := log.String(); strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "made anew") {
		t.Errorf("log after the loss: got %q, want one warning", got)
	}
	now = now.Add(time.Hour)
	server.At(now)
	server.Replace()
	granted(t, s, claim("c", 1))
	if got := vouch(t, s).Since; !got.Equal(now) {
		t.Errorf("Since after another server answered: got %v, want %v", got, now)
	}
}

// TestReplacedServerWithASlowClock: what the old one acknowledged by its own clock
// counts.
func TestReplacedServerWithASlowClock(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(now)
	s := open(t, server, nil)
	s.SetClock(func() time.Time { return now })
	granted(t, s, claim("a", 1))
	now = now.Add(time.Hour)
	server.At(now)
	granted(t, s, claim("b", 1))
	server.Replace()
	server.At(now.Add(-30 * time.Second))
	granted(t, s, claim("c", 1))
	if got := vouch(t, s).Since; got.Before(now) {
		t.Errorf("Since: got %v, want not before %v", got, now)
	}
}

// TestLateMeeting: a process that was cut off with the old master raises Since to
// what that one last acknowledged, though others have met the new one before.
func TestLateMeeting(t *testing.T) {
	now := time.Now().Truncate(time.Millisecond)
	server := redistest.Run(t)
	server.At(now)
	become := func(name string) {
		server.Set("run_id", name)
		server.Set("master_replid", name)
	}
	become("old")
	cutOff, other := open(t, server, nil), open(t, server, nil)
	for _, s := range []*redisstore.Store{cutOff, other} {
		s.SetClock(func() time.Time { return now })
	}
	granted(t, cutOff, claim("a", 1))
	granted(t, other, claim("b", 1))
	become("new")
	granted(t, other, claim("c", 1))
	now = now.Add(10 * time.Minute)
	server.At(now)
	become("old")
	granted(t, cutOff, claim("d", 1))
	last := now
	now = now.Add(time.Minute)
	server.At(now)
	become("new")
	granted(t, cutOff, claim("e", 1))
	if got := vouch(t, cutOff).Since; !got.Equal(last) {
		t.Errorf("Since: got %v, want %v, when the old master last answered", got, last)
	}
}
