package kafkatransport

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/internal/brokertest"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

func TestOwner(t *testing.T) {
	since := time.UnixMilli(1_700_000_000_123)
	for _, o := range []owner{{}, {store: "a"}, {store: "a b=c", since: since}} {
		if got := parseOwner(o.String()); got.store != o.store || !got.since.Equal(o.since) {
			t.Errorf("%q: got %+v, want %+v", o.String(), got, o)
		}
	}
	for _, foreign := range []string{"", "consumed by x", ownerPrefix, ownerPrefix + " since=1", ownerPrefix + " since=x store=a", "oncequeue/2 since=1 store=a"} {
		if got := parseOwner(foreign); got != (owner{}) {
			t.Errorf("%q: got %+v, want nobody", foreign, got)
		}
	}
	now := since.Add(time.Hour)
	for _, x := range []struct {
		was, want owner
	}{
		{owner{}, owner{store: "b"}}, // nobody said
		{owner{store: "b"}, owner{store: "b"}},
		{owner{store: "b", since: since}, owner{store: "b", since: since}},
		{owner{store: "a", since: since}, owner{store: "b", since: now}},
	} {
		if got := x.was.next("b", now); got != x.want {
			t.Errorf("after %v: got %v, want %v", x.was, got, x.want)
		}
	}
}

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
	consume := func(store dedup.Store, during func()) *staleness {
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
	if got := <-metadata; !strings.HasSuffix(got, " store="+v.ID) {
		t.Errorf("got the metadata %q in the handler, want the store %s", got, v.ID)
	}
	if epoch := k.Cluster().GroupInfo("g").Commits["t"][0].LeaderEpoch; epoch != -1 {
		t.Errorf("got leader epoch %d committed, want none: -1", epoch)
	}
}
