package redisstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/horizon"
)

// ledger is what all who share the store must know: one key, in JSON. It is
// changed by compare-and-swap, so its rules are here and not on the server.
type ledger struct {
	Version int    `json:"version"`
	ID      string `json:"id"`

	// The horizon, in milliseconds since 1970, or of duration.
	Since  int64 `json:"since"`
	TTL    int64 `json:"ttl,omitempty"`
	Before int64 `json:"before"`
	Short  int64 `json:"short,omitempty"`

	// Token is a high-water mark, some seconds old: no token issued later falls
	// below it, even if the server's clock was set back and the record is gone.
	Token driver.Token `json:"token,omitempty"`

	// Servers says when each incarnation of a server was first met: another one
	// may have lost what the last one acknowledged.
	Servers map[string]int64 `json:"servers"`
	Changes int64            `json:"changes,omitempty"`

	created bool // just now, by a process that knew none before
}

const (
	ledgerVersion = 1
	// maxServers bounds the ledger; the incarnations met first go first.
	maxServers = 256
)

func (l *ledger) horizon() horizon.Horizon {
	return horizon.Horizon{
		Since: time.UnixMilli(l.Since).UTC(), TTL: time.Duration(l.TTL) * time.Millisecond,
		Before: time.UnixMilli(l.Before).UTC(), Short: time.Duration(l.Short) * time.Millisecond,
	}
}

func (l *ledger) setHorizon(h horizon.Horizon) {
	l.Since, l.TTL = h.Since.UnixMilli(), h.TTL.Milliseconds()
	l.Before, l.Short = h.Before.UnixMilli(), h.Short.Milliseconds()
}

// see takes in that records are made with this TTL.
func (l *ledger) see(ttl time.Duration, now time.Time) {
	h := l.horizon()
	h.See(roundUp(ttl), now)
	l.setHorizon(h)
}

// meet takes in an incarnation of a server, and reports whether it is a new one.
// What was acknowledged before that time may be gone then, unless the store itself
// is new.
func (l *ledger) meet(server string, at time.Time) bool {
	if _, ok := l.Servers[server]; ok {
		return false
	}
	if len(l.Servers) >= maxServers {
		oldest := ""
		for s, t := range l.Servers {
			if oldest == "" || t < l.Servers[oldest] {
				oldest = s
			}
		}
		delete(l.Servers, oldest)
	}
	l.Servers[server] = at.UnixMilli()
	if !l.created {
		l.Since = max(l.Since, at.UnixMilli())
		l.Changes++
	}
	return true
}

// update applies change to the ledger until nobody comes between, and keeps what
// it is then. change returns whether it changed anything, and is told the server's
// time. If there is no ledger, a new one is made first.
func (s *Store) update(ctx context.Context, change func(l *ledger, now time.Time) bool) error {
	const tries = 100
	key := s.o.Prefix + "store"
	before, err := s.sendOne(ctx, s.lua.swap, key, "")
	for range tries {
		if err != nil {
			return fmt.Errorf("redisstore: the key %s: %w", key, err)
		}
		now := s.time()
		l, wrong := s.parse(before, now)
		if wrong != nil {
			return fmt.Errorf("redisstore: the key %s: %w", key, wrong)
		}
		if !change(l, now) && before != "" {
			s.keep(l)
			return nil
		}
		text, wrong := json.Marshal(l)
		if wrong != nil {
			return fmt.Errorf("redisstore: the key %s: %w", key, wrong)
		}
		before, err = s.sendOne(ctx, s.lua.swap, key, fmt.Sprintf("%d:%s%s", len(before), before, text))
		if err == nil && before == string(text) {
			s.keep(l)
			return nil
		}
	}
	return fmt.Errorf("redisstore: the key %s was changed by others %d times: try again", key, tries)
}

// parse reads a ledger, or makes a new one.
func (s *Store) parse(text string, now time.Time) (*ledger, error) {
	if text == "" {
		since := now
		s.mu.Lock()
		lost := s.ledger != nil // it was there: no word on the past counts any more
		s.mu.Unlock()
		if v := s.o.VouchFrom; !lost && !v.IsZero() && v.Before(now) {
			since = v
		}
		l := &ledger{Version: ledgerVersion, ID: rand.Text(), Servers: make(map[string]int64), created: !lost}
		l.setHorizon(horizon.New(since))
		return l, nil
	}
	l := new(ledger)
	if err := json.Unmarshal([]byte(text), l); err != nil || l.Version < 1 {
		return nil, errors.New("it holds something else: give the store a Prefix of its own")
	}
	if l.Version > ledgerVersion {
		return nil, fmt.Errorf("the store has version %d of the format, and this program knows %d: upgrade it", l.Version, ledgerVersion)
	}
	if l.Servers == nil {
		l.Servers = make(map[string]int64)
	}
	return l, nil
}

func roundUp(d time.Duration) time.Duration { return time.Duration(milliseconds(d)) * time.Millisecond }
