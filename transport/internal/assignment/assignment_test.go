package assignment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
	"github.com/oncequeue/oncequeue/transport/internal/lanes"
	"github.com/oncequeue/oncequeue/transport/internal/owner"
	"github.com/oncequeue/oncequeue/transport/internal/status"
	"github.com/oncequeue/oncequeue/transport/internal/window"
)

// group is the consumer group in memory.
type group struct {
	mu      sync.Mutex
	commits map[Name]LastCommit
	refuse  map[Name]error
	fails   error
	seen    func(Mark) // called for each mark that is taken
}

func newGroup() *group { return &group{commits: map[Name]LastCommit{}, refuse: map[Name]error{}} }

func (g *group) Committed(_ context.Context, ps []Name) (map[Name]LastCommit, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	commits := make(map[Name]LastCommit)
	for _, p := range ps {
		c, ok := g.commits[p]
		if !ok {
			c.Offset = -1
		}
		commits[p] = c
	}
	return commits, nil
}

func (g *group) Commit(_ context.Context, marks []Mark) (map[Name]error, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	refused := make(map[Name]error)
	for _, m := range marks {
		if err := g.refuse[m.Name]; err != nil {
			refused[m.Name] = err
			continue
		}
		if g.seen != nil {
			g.seen(m)
		}
		g.commits[m.Name] = LastCommit{Offset: m.Offset, Metadata: m.Metadata} // also when the reply is lost
	}
	return refused, g.fails
}

func (g *group) offset(n Name) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.commits[n]; ok {
		return c.Offset
	}
	return -1
}

// newRun makes a Run whose handler is h, with a store named "me" that is not shared.
func newRun(t interface{ Cleanup(func()) }, h dedup.Handler, change func(*Options)) *Run {
	log := slog.New(slog.DiscardHandler)
	d, err := dedup.New(memstore.New(nil), "s", dedup.PositionKey(), &dedup.Options{OnStale: dedup.PolicyProcess})
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { _ = d.Shutdown(context.Background()) })
	o := Options{
		Bounds: window.Bounds{Messages: 100, Bytes: 1 << 20, Ahead: 1 << 20},
		Total:  window.NewBudget(1000, 1<<30),
		Pool:   lanes.NewSingle(8, lanes.CoreOf(d), h, func() {}),
		Status: status.New(log, "kafka"),
		Counts: &Counts{},
		Log:    log,
		Vouch:  func() (driver.Vouch, error) { return driver.Vouch{ID: "me"}, nil },

		Start:          Earliest,
		DrainTimeout:   20 * time.Second,
		DrainCommit:    time.Second,
		Grace:          time.Second,
		Revoked:        errors.New("revoked"),
		PartitionCount: func(string) int { return 0 },
	}
	if change != nil {
		change(&o)
	}
	return NewRun(context.Background(), o)
}

func nothing(context.Context, *dedup.Message) ([]byte, error) { return nil, nil }

// messages makes n messages for p from the offset on, each with a key of its own.
func messages(p *Partition, from int64, n int) []dedup.Message {
	ms := make([]dedup.Message, n)
	for i := range ms {
		offset := from + int64(i)
		ms[i] = dedup.Message{Key: fmt.Append(nil, offset), Published: time.Now(), Position: dedup.Position{Source: p.Topic, Partition: p.Number, Offset: offset}}
	}
	return ms
}

// begin identifies the partitions and begins each where it is to, in an empty log.
func begin(t testing.TB, a *Assignment, ps ...*Partition) {
	t.Helper()
	a.Identify(t.Context(), ps, func(p *Partition) { go p.Begin(max(p.First(), 0)) }, func() {})
	synctest.Wait()
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// TestCommittedIsTheContiguousPrefix settles messages in random order, commits at random
// moments with random failures, and gives partitions up at random moments: a
// committed offset never passes an unsettled message, never moves back, and is never for a
// partition that was given up.
func TestCommittedIsTheContiguousPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGroup()
		r := newRun(t, nothing, nil)
		a := r.New(g)
		start := rapid.Int64Range(0, 5).Draw(t, "begin")
		type model struct {
			p    *Partition
			open map[int64]*window.Flight
			next int64
			over bool
			was  int64 // committed when it was given up
		}
		var models []*model
		for i := range int32(2) {
			p := a.Add(Name{"t", i})
			p.window.Advance(start)
			p.located.Store(true)
			p.owner.Store = "me"
			models = append(models, &model{p: p, open: map[int64]*window.Flight{}, next: start})
			g.commits[p.Name] = LastCommit{Offset: start}
		}
		g.seen = func(m Mark) {
			if m.Offset < g.commits[m.Name].Offset {
				t.Fatalf("%v: committed %d after %d", m.Name, m.Offset, g.commits[m.Name].Offset)
			}
		}
		one := func(t *rapid.T) *model { return models[rapid.IntRange(0, 1).Draw(t, "partition")] }
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for _, m := range models {
					want := m.next
					if len(m.open) > 0 {
						want = slices.Min(slices.Collect(maps.Keys(m.open)))
					}
					got := g.offset(m.p.Name)
					if got > want {
						t.Fatalf("%s: committed %d, past the unsettled %d", m.p.Title, got, want)
					}
					if m.over && got != m.was {
						t.Fatalf("%s: committed %d after it was given up at %d", m.p.Title, got, m.was)
					}
				}
			},
			"dispatch": func(t *rapid.T) {
				m := one(t)
				if m.over {
					t.Skip("given up")
				}
				offset := m.next + rapid.Int64Range(0, 2).Draw(t, "gap")
				flights, _ := m.p.window.TryDispatch(messages(m.p, offset, 1))
				m.open[offset], m.next = flights[0], offset+1
			},
			"settle": func(t *rapid.T) { // also after the end: a late handler
				m := one(t)
				if len(m.open) == 0 {
					t.Skip("nothing in flight")
				}
				offset := rapid.SampledFrom(slices.Sorted(maps.Keys(m.open))).Draw(t, "offset")
				(*reporter)(m.p).Settled(m.open[offset])
				delete(m.open, offset)
			},
			"commit": func(t *rapid.T) {
				g.fails = nil
				if rapid.Bool().Draw(t, "fails") {
					g.fails = errors.New("no reply")
				}
				for _, m := range models {
					g.refuse[m.p.Name] = nil
					if rapid.Bool().Draw(t, "refused") {
						g.refuse[m.p.Name] = errors.New("refused")
					}
				}
				_ = a.Commit()
				for _, m := range models {
					if got := m.p.committed.Load(); got > g.offset(m.p.Name) {
						t.Fatalf("%s: noted is %d, the group has %d", m.p.Title, got, g.offset(m.p.Name))
					}
				}
			},
			"give up": func(t *rapid.T) {
				m := one(t)
				if m.over || rapid.IntRange(0, 9).Draw(t, "now") > 0 {
					t.Skip("not now")
				}
				if rapid.Bool().Draw(t, "lost") {
					a.Lose([]*Partition{m.p})
				} else {
					a.Drain([]*Partition{m.p})
				}
				m.over, m.was = true, g.offset(m.p.Name)
			},
		})
		for _, m := range models { // running calls end
			m.p.line.Stop()
		}
	})
}

// TestWhereAPartitionBegins: an offset of the group counts; else whether the topic is new
// to the group, or the partition to the topic.
func TestWhereAPartitionBegins(t *testing.T) {
	ours := func(parts int) string { return owner.Owner{Store: "me", Parts: parts}.String() }
	for name, x := range map[string]struct {
		commits map[int32]LastCommit
		missing bool
		want    int64
		parts   int
	}{
		"committed":                    {commits: map[int32]LastCommit{1: {Offset: 7, Metadata: ours(2)}}, want: 7, parts: 2},
		"topic new to the group":       {want: Latest, parts: 4},
		"first commits of others":      {commits: map[int32]LastCommit{0: {Offset: 3, Metadata: ours(2)}}, want: Latest, parts: 2},
		"added later":                  {commits: map[int32]LastCommit{0: {Offset: 3, Metadata: ours(1)}}, want: Earliest, parts: 1},
		"beside a foreign commit":      {commits: map[int32]LastCommit{0: {Offset: 3}}, want: Earliest},
		"topic made anew":              {missing: true, want: Earliest, parts: 4},
		"beside an offset not known":   {commits: map[int32]LastCommit{0: {Err: errors.New("denied")}}, want: -100},
		"another topic was consumed":   {commits: map[int32]LastCommit{-1: {Offset: 3}}, want: Latest, parts: 4},
		"added later, counted by most": {commits: map[int32]LastCommit{0: {Offset: 3, Metadata: ours(1)}, 2: {Offset: 3, Metadata: ours(2)}}, want: Latest, parts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup()
				for n, c := range x.commits {
					name := Name{"t", n}
					if n < 0 {
						name = Name{"other", 0}
					}
					g.commits[name] = c
				}
				r := newRun(t, nothing, func(o *Options) {
					o.Start, o.PartitionCount = Latest, func(string) int { return 4 }
				})
				if x.missing {
					r.missing.Store("t", time.Now())
				}
				a := r.New(g)
				p := a.Add(Name{"t", 1})
				first := int64(-100)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				a.Identify(ctx, a.Partitions(), func(p *Partition) { first = p.First() }, func() {})
				if first != x.want || p.owner.Parts != x.parts {
					t.Errorf("got it begun at %d, with %d partitions then, want %d and %d", first, p.owner.Parts, x.want, x.parts)
				}
				a.Drain([]*Partition{p})
			})
		})
	}
}

// An offset that was committed before its topic was deleted is not believed at once.
func TestOffsetOfADeletedTopicIsDoubted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup()
		name := Name{"t", 0}
		g.commits[name] = LastCommit{Offset: 9}
		r := newRun(t, nothing, nil)
		r.missing.Store("t", time.Now())
		time.AfterFunc(2*time.Second, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			delete(g.commits, name)
		})
		a := r.New(g)
		p := a.Add(name)
		a.Identify(t.Context(), a.Partitions(), func(*Partition) {}, func() {})
		if p.First() != Earliest {
			t.Errorf("got it begun at %d, want at the beginning of the new topic", p.First())
		}
		a.Drain([]*Partition{p})
	})
}

func TestSkippedByLatestIsCounted(t *testing.T) {
	r := newRun(t, nothing, nil)
	p := r.New(newGroup()).Add(Name{"t", 0})
	for _, x := range []struct{ first, want, skipped int64 }{{Latest, 30, 20}, {Earliest, 10, 0}, {12, 12, 0}} {
		p.first = x.first
		r.Counts.Skipped.Store(0)
		if got := p.StartAt(10, 30); got != x.want || r.Counts.Skipped.Load() != x.skipped {
			t.Errorf("%d: got %d, %d skipped, want %d, %d skipped", x.first, got, r.Counts.Skipped.Load(), x.want, x.skipped)
		}
	}
	p.first = Latest
	r.Counts.Skipped.Store(0)
	if got := p.StartAt(30, 30); got != 30 || r.Counts.Skipped.Load() != 0 {
		t.Errorf("an empty log: got %d, %d skipped", got, r.Counts.Skipped.Load())
	}
}

// TestDrainOfOneLeavesTheOther: as in a cooperative rebalance, one partition is taken
// away while another goes on.
func TestDrainOfOneLeavesTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup()
		r := newRun(t, func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			select {
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-time.After(10 * time.Second):
				return nil, nil
			}
		}, nil)
		a := r.New(g)
		gone, stays := a.Add(Name{"t", 0}), a.Add(Name{"t", 1})
		begin(t, a, gone, stays)
		gone.Put(messages(gone, 0, 3), 3)
		stays.Put(messages(stays, 0, 1), 1)
		time.Sleep(time.Second)
		from := time.Now()
		a.Drain([]*Partition{gone})
		if took := time.Since(from); took != 9*time.Second {
			t.Errorf("got a drain of %v, want 9s: until the handlers have returned", took)
		}
		if got := g.offset(gone.Name); got != 3 {
			t.Errorf("got %d committed by the drain, want 3", got)
		}
		if gone.Fetching().Err() == nil || stays.Fetching().Err() != nil || len(a.Partitions()) != 1 {
			t.Error("want the fetching of the one ended, and that of the other not")
		}
		stays.Put(messages(stays, 1, 1), 2)
		time.Sleep(20 * time.Second)
		if err := a.Commit(); err != nil || g.offset(stays.Name) != 2 || g.offset(gone.Name) != 3 {
			t.Errorf("got %d and %d committed, want 2 by the one that stays", g.offset(stays.Name), g.offset(gone.Name))
		}
		a.Drain([]*Partition{stays})
		if err := r.Finish(time.Second); err != nil {
			t.Error(err)
		}
	})
}

// TestHandlerThatOutlastsItsDrain: its context ends with the cause, a message that it settles
// later is not committed, and Finish says that it runs.
func TestHandlerThatOutlastsItsDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup()
		cause := make(chan error, 1)
		release := make(chan struct{})
		r := newRun(t, func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			cause <- context.Cause(ctx)
			<-release
			return nil, nil
		}, nil)
		a := r.New(g)
		p := a.Add(Name{"t", 0})
		begin(t, a, p)
		p.Put(messages(p, 0, 1), 1)
		synctest.Wait()
		from := time.Now()
		a.Drain([]*Partition{p})
		if took := time.Since(from); took != r.DrainTimeout+r.Grace {
			t.Errorf("got a drain of %v, want %v", took, r.DrainTimeout+r.Grace)
		}
		if got := <-cause; !errors.Is(got, r.Revoked) {
			t.Errorf("got the cause %v, want %v", got, r.Revoked)
		}
		if err := r.Finish(time.Second); err == nil || !strings.Contains(err.Error(), "1 handlers still run") {
			t.Errorf("got %v, want that 1 handler runs", err)
		}
		close(release)
		synctest.Wait()
		if err := r.Finish(time.Second); err != nil {
			t.Errorf("it has returned: got %v", err)
		}
		if g.offset(p.Name) != 0 || r.Counts.Late.Load() != 1 {
			t.Errorf("got %d committed and %d late, want 0 and 1", g.offset(p.Name), r.Counts.Late.Load())
		}
	})
}

// TestLostPartitionIsLeftAtOnce: it is another's, so that nothing is committed.
func TestLostPartitionIsLeftAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup()
		r := newRun(t, func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil)
		a := r.New(g)
		p := a.Add(Name{"t", 0})
		begin(t, a, p)
		p.Put(messages(p, 0, 1), 1)
		p.window.Advance(5)
		synctest.Wait()
		from := time.Now()
		a.Lose([]*Partition{p})
		if time.Since(from) != 0 || g.offset(p.Name) != 0 || len(a.Partitions()) != 0 {
			t.Errorf("after %v: got %d committed, %d partitions", time.Since(from), g.offset(p.Name), len(a.Partitions()))
		}
		if err := r.Finish(time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestAllHalted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRun(t, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Position.Partition == 1 {
				return nil, nil
			}
			return nil, dedup.Permanent(errors.New("cannot be"))
		}, nil)
		a := r.New(newGroup())
		bad, good := a.Add(Name{"t", 0}), a.Add(Name{"t", 1})
		begin(t, a, bad, good)
		bad.Put(messages(bad, 4, 1), 5)
		good.Put(messages(good, 0, 1), 1)
		synctest.Wait()
		if !bad.Halted() || good.Halted() || a.Halts() != nil || bad.Fetching().Err() == nil {
			t.Fatalf("got halted %v and %v, and %v", bad.Halted(), good.Halted(), a.Halts())
		}
		good.Halt(7, errors.New("gone"))
		<-a.AllHalted()
		err := a.Halts()
		if err == nil || !strings.Contains(err.Error(), "t/0@4: ") || !strings.Contains(err.Error(), "t/1@7: gone") {
			t.Errorf("got %v, want both partitions with their offsets", err)
		}
		a.Drain(a.Partitions())
	})
}

// TestFeederDoesNotBlock: a poll gives a partition more than it has room for. The Feeder
// takes it, says so, and asks for more when all of it was handed out.
func TestFeederDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRun(t, func(context.Context, *dedup.Message) ([]byte, error) {
			<-release
			return nil, nil
		}, func(o *Options) { o.Bounds.Messages = 10 })
		a := r.New(newGroup())
		p := a.Add(Name{"t", 0})
		begin(t, a, p)
		resumed := 0
		f := p.NewFeeder(func() { resumed++ })
		if f.Put(messages(p, 0, 5), 5) {
			t.Error("5 of 10: got a full Feeder")
		}
		if !f.Put(messages(p, 5, 10), 15) || !f.Put(messages(p, 15, 3), 20) {
			t.Error("more than 10: got room")
		}
		synctest.Wait()
		if resumed != 0 || p.window.Load().Messages != 10 {
			t.Errorf("got %d in flight, resumed %d times, want 10 and none", p.window.Load().Messages, resumed)
		}
		close(release)
		synctest.Wait()
		if mark, _ := p.window.Watermark(); mark != 20 || resumed != 1 {
			t.Errorf("got watermark %d, resumed %d times, want 20 and once", mark, resumed)
		}
		a.Drain(a.Partitions())
		if f.Put(messages(p, 20, 1), 21) {
			t.Error("given up: got a full Feeder, want the messages dropped")
		}
	})
}

// TestWaitingNamesTheMessage: the message that a partition waits for is in hand for long.
func TestWaitingNamesTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRun(t, func(_ context.Context, m *dedup.Message) ([]byte, error) {
			if m.Position.Offset == 3 {
				<-release
			}
			return nil, nil
		}, func(o *Options) { o.Bounds.Ahead = 50 })
		a := r.New(newGroup())
		p := a.Add(Name{"t", 0})
		begin(t, a, p)
		from := time.Now()
		go p.Put(messages(p, 0, 100), 100)
		time.Sleep(waitingAfter / 2)
		if _, _, waits := p.Waiting(); waits {
			t.Error("got a partition that waits, too soon to tell")
		}
		time.Sleep(waitingAfter)
		if !p.Stats().Waiting {
			t.Error("Stats: it does not wait")
		}
		if offset, since, waits := p.Waiting(); !waits || offset != 3 || !since.Equal(from) {
			t.Errorf("got offset %d since %v, %v, want 3", offset, since, waits)
		}
		if s := p.Stats(); s.InFlight != 1 || s.Watermark != 3 {
			t.Errorf("got %+v, want one message in flight", s)
		}
		close(release)
		synctest.Wait()
		if _, _, waits := p.Waiting(); waits {
			t.Error("settled: got a partition that waits")
		}
		a.Drain(a.Partitions())
	})
}
