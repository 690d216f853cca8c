package redisstore

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/store/internal/forget"
)

var _ driver.Inspector = (*Store)(nil)

// scanCount is how many keys a server looks at in one step of Records, and how
// many records one step reads.
const scanCount = 256

// forceArg tells the script forget that ForceForget asks.
const forceArg = "force"

// itemsOf returns what has a script work on records.
func (s *Store) itemsOf(script *script, ids []driver.ID) []*item {
	items := make([]*item, len(ids))
	for i, id := range ids {
		items[i] = &item{script: script, key: s.o.Prefix + string(id[:])}
	}
	return items
}

// ask has a script work on records, within the time of an Apply.
func (s *Store) ask(ctx context.Context, items []*item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if err := s.ready(ctx, nil); err != nil {
		return err
	}
	s.send(ctx, items, false)
	return nil
}

// Lookup implements [driver.Inspector].
func (s *Store) Lookup(ctx context.Context, id driver.ID) (driver.Record, error) {
	items := s.itemsOf(s.lua.read, []driver.ID{id})
	if err := s.ask(ctx, items); err != nil {
		return driver.Record{}, err
	}
	reply, err := s.result(ctx, items[0], nil)
	if err != nil {
		return driver.Record{}, recordFailed(id, err)
	}
	return reply.Record, nil
}

// Records implements [driver.Inspector] by SCAN: a few hundred keys at a time, one server
// after the other. SCAN can return a key twice, so Records remembers each ID that it has
// yielded: 16 bytes for each, and some room to grow. It may miss a record that moves to
// another server of a cluster during the iteration.
func (s *Store) Records(ctx context.Context) iter.Seq2[driver.StoredRecord, error] {
	return func(yield func(driver.StoredRecord, error) bool) {
		masters, err := s.nodes.masters(ctx)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(driver.StoredRecord{}, fmt.Errorf("redisstore: %w", err))
			return
		}
		seen := make(map[driver.ID]struct{})
		for _, c := range masters {
			if !s.scan(ctx, c, seen, yield) {
				return
			}
		}
	}
}

// scan yields the records of one server, and reports whether to go on.
func (s *Store) scan(ctx context.Context, c *redis.Client, seen map[driver.ID]struct{}, yield func(driver.StoredRecord, error) bool) bool {
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(ctx, cursor, s.o.Prefix+"*", scanCount).Result()
		if err != nil {
			yield(driver.StoredRecord{}, fmt.Errorf("redisstore: %w", explain(err, address(c))))
			return false
		}
		var ids []driver.ID
		for _, key := range keys {
			var id driver.ID
			if len(key) != len(s.o.Prefix)+len(id) {
				continue // the ledger, the sources, or another program's
			}
			copy(id[:], key[len(s.o.Prefix):])
			if _, again := seen[id]; !again {
				seen[id] = struct{}{}
				ids = append(ids, id)
			}
		}
		items := s.itemsOf(s.lua.read, ids)
		if err := s.ask(ctx, items); err != nil {
			yield(driver.StoredRecord{}, err)
			return false
		}
		for i, x := range items {
			r, err := s.result(ctx, x, nil)
			if err != nil {
				yield(driver.StoredRecord{}, recordFailed(ids[i], err))
				return false
			}
			if r.Record.State != driver.StateFree && !yield(driver.StoredRecord{ID: ids[i], Record: r.Record}, nil) {
				return false
			}
		}
		if cursor = next; cursor == 0 {
			return true
		}
	}
}

// Stats implements [driver.Inspector]. Records is the number of all keys of the database, and
// Bytes is all memory of the servers: keys of other programs are counted too.
func (s *Store) Stats(ctx context.Context) (stats driver.Stats, err error) {
	if err := ctx.Err(); err != nil {
		return stats, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	masters, err := s.nodes.masters(ctx)
	if err != nil {
		return stats, fmt.Errorf("redisstore: %w", err)
	}
	var weakest durability
	for i, c := range masters {
		c = s.bounded(ctx, c)
		keys, err := c.DBSize(ctx).Result()
		if err != nil {
			return stats, fmt.Errorf("redisstore: %w", explain(err, address(c)))
		}
		info, err := c.Info(ctx).Result()
		if err != nil {
			return stats, fmt.Errorf("redisstore: %w", explain(err, address(c)))
		}
		stats.Records += keys
		stats.Bytes += integer(info, "used_memory")
		if d := durable(ctx, c, info); i == 0 || d.less(weakest) {
			weakest = d
		}
	}
	stats.Durability = weakest.String()
	if stats.Vouch, err = s.Vouch(ctx); err != nil {
		return stats, err
	}
	s.mu.Lock()
	stats.Changes = s.ledger.Changes
	s.mu.Unlock()
	stats.Now, stats.Token = s.time(), driver.Token(s.high.Load())
	return stats, nil
}

// Forget implements [driver.Inspector]. On one server, up to 256 records are forgotten
// together or not at all. With more, or on a cluster, Forget looks at all records before it
// removes any. If one of them is claimed between the two steps, Forget returns an error for
// it, and others may be forgotten.
func (s *Store) Forget(ctx context.Context, ids []driver.ID) error { return s.forget(ctx, ids, false) }

// ForceForget implements [driver.Inspector], with the bounds of Forget.
func (s *Store) ForceForget(ctx context.Context, ids []driver.ID) error {
	return s.forget(ctx, ids, true)
}

func (s *Store) forget(ctx context.Context, ids []driver.ID, force bool) error {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b driver.ID) int { return bytes.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	scripts := []*script{s.lua.forget}
	if len(ids) > s.nodes.perScript() {
		scripts = []*script{s.lua.read, s.lua.forget} // look at all of them first
	}
	for _, script := range scripts {
		items := s.itemsOf(script, ids)
		if force {
			for _, x := range items {
				x.arg = forceArg
			}
		}
		if err := s.ask(ctx, items); err != nil {
			return err
		}
		var refused error
		for i, x := range items {
			r, err := s.result(ctx, x, nil)
			if err != nil {
				return recordFailed(ids[i], err)
			}
			if refused == nil && (x.status == answerHeld || script == s.lua.read) {
				if err := forget.Refusal(&r.Record, s.time(), force); err != nil {
					refused = recordFailed(ids[i], fmt.Errorf("forget: %w", err))
				}
			}
		}
		if refused != nil {
			return refused
		}
	}
	return nil
}

func recordFailed(id driver.ID, err error) error {
	return fmt.Errorf("redisstore: record %v: %w", id, err)
}
