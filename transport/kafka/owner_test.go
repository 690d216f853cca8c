package kafkatransport

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/oncequeue/oncequeue/transport/internal/owner"
)

// staleness notes which messages were flagged.
type staleness struct {
	mu    sync.Mutex
	stale map[string]bool
}

func (s *staleness) handle(_ context.Context, m *dedup.Message) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale == nil {
		s.stale = map[string]bool{}
	}
	s.stale[string(m.Value)] = m.Claim.Stale
	return nil, nil
}

// check wants the messages from to to-1 handled, and flagged or not.
func (s *staleness) check(t *testing.T, who string, from, to int, want bool) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := from; i < to; i++ {
		if got, seen := s.stale[fmt.Sprint(i)]; !seen || got != want {
			t.Errorf("%s: message %d: got stale %v, handled %v, want stale %v", who, i, got, seen, want)
		}
	}
}

// TestForeignStoreIsFlagged: two members that do not share a store consume the
// partition in turns. What was written before one took it over from the other is
// flagged, also after a restart; what comes later is not.
func TestForeignStoreIsFlagged(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 2}, nil)
	remembers := &memstore.Options{VouchFrom: time.Unix(0, 0)} // so that only the other store makes stale
	first, second := memstore.New(remembers), memstore.New(remembers)
	n := 0
	write := func(count int) {
		produce(t, k, numbered("t", n, count, count)...)
		n += count
	}
	consume := func(store driver.Store, during func()) *staleness {
		s := &staleness{}
		c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicatorOver(t, store, &dedup.Options{ClockSkew: -1})
		r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, s.handle) })
		eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		if during != nil {
			during()
			eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
		}
		if err := r.Stop(); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		return s
	}
	write(20)
	consume(first, nil).check(t, "the first", 0, 20, false)
	write(20)
	consume(second, func() { write(20) }).check(t, "the second, of before", 20, 40, true)
	write(20)
	s := consume(second, nil)
	s.check(t, "the second after its restart", 60, 80, false)
	write(20)
	s = consume(first, func() { write(20) })
	s.check(t, "the first again, of before", 80, 100, true)
	s.check(t, "the first again, of later", 100, 120, false)
}

// shared is a store that says that others use it too.
type shared struct{ *memstore.Store }

func (s shared) Vouch(ctx context.Context) (driver.Vouch, error) {
	v, err := s.Store.Vouch(ctx)
	v.Shared = true
	return v, err
}

// TestOffsetWithoutOwner: an operator sets the group's offset, which then no longer
// says with which store the partition was consumed. What a store of one process has
// no record of may be known to another; a shared one knows all.
func TestOffsetWithoutOwner(t *testing.T) {
	for name, wrap := range map[string]func(*memstore.Store) driver.Store{
		"of one process": func(s *memstore.Store) driver.Store { return s },
		"shared":         func(s *memstore.Store) driver.Store { return shared{s} },
	} {
		t.Run(name, func(t *testing.T) {
			k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
			store := wrap(memstore.New(&memstore.Options{VouchFrom: time.Unix(0, 0)}))
			consume := func(during func()) *staleness {
				s := &staleness{}
				c, d := newConsumer(t, k, "g", quick(t), "t"), newDeduplicatorOver(t, store, &dedup.Options{ClockSkew: -1})
				r := start(t, func(ctx context.Context) error { return c.Run(ctx, d, s.handle) })
				eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
				during()
				eventually(t, "the group has committed the ends", func() bool { return complete(k, "g", "t") })
				if err := r.Stop(); err != nil {
					t.Errorf("Run: got %v, want nil", err)
				}
				return s
			}
			write := func(from int) func() { return func() { produce(t, k, numbered("t", from, 10, 10)...) } }
			consume(write(0)).check(t, "in a new group", 0, 10, false)
			write(10)()
			commitAt(5)(t, k)
			s := consume(write(20))
			s.check(t, "after the offset was set, of before", 10, 20, name == "of one process")
			s.check(t, "after the offset was set, of later", 20, 30, false)
			if len(s.stale) != 20 {
				t.Errorf("got %d messages handled, want 20 and those recorded before not again", len(s.stale))
			}
			write(30)()
			consume(write(40)).check(t, "after a restart", 30, 50, false)
		})
	}
}

// Before a message is handed out, the group knows with which store: a member that
// dies without another commit leaves that behind.
func TestOwnerIsCommittedFirst(t *testing.T) {
	k := brokertest.NewKafka(t, map[string]int32{"t": 1}, nil)
	produce(t, k, numbered("t", 0, 1, 1)...)
	store := memstore.New(nil)
	v, err := store.Vouch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := quick(t)
	config.CommitInterval = time.Hour
	c, d := newConsumer(t, k, "g", config, "t"), newDeduplicatorOver(t, store, nil)
	metadata := make(chan string, 1)
	start(t, func(ctx context.Context) error {
		return c.Run(ctx, d, func(context.Context, *dedup.Message) ([]byte, error) {
			select {
			case metadata <- k.Cluster().GroupInfo("g").Commits["t"][0].Metadata:
			default:
			}
			return nil, nil
		})
	})
	if got := <-metadata; owner.Parse(got).Store != v.ID {
		t.Errorf("got the metadata %q in the handler, want the store %s", got, v.ID)
	}
	if epoch := k.Cluster().GroupInfo("g").Commits["t"][0].LeaderEpoch; epoch != -1 {
		t.Errorf("got leader epoch %d committed, want none: -1", epoch)
	}
}
