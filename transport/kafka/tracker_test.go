package kafkatransport

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/offsetcommit"
	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
)

// model is what a partition should be like, the slow and plain way.
type model struct {
	dispatched []int64
	settled    map[int64]bool
	next       int64
}

func (m *model) watermark() int64 {
	for _, offset := range m.dispatched {
		if !m.settled[offset] {
			return offset
		}
	}
	return m.next
}

// TestCommittedIsTheContiguousPrefix settles messages in random order, commits
// at random moments with random failures, and ends the generation at a random
// moment: what is committed never passes an unsettled message, never moves back,
// and is never for a partition of another.
func TestCommittedIsTheContiguousPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		broker := map[int]int64{}
		fails, refused := false, map[string]error{}
		commitTo := func(_ context.Context, topics []offsetcommit.RequestTopic) (map[string]error, error) {
			for _, topic := range topics {
				for _, rp := range topic.Partitions {
					p, offset := int(rp.PartitionIndex), rp.CommittedOffset
					if refused[partitionName(topic.Name, rp.PartitionIndex)] != nil {
						continue
					}
					if topic.Name != "t" || p > 1 {
						t.Fatalf("committed %s/%d, which is not assigned", topic.Name, p)
					}
					if offset < broker[p] {
						t.Fatalf("partition %d: committed %d after %d", p, offset, broker[p])
					}
					broker[p] = offset // also when the reply is lost
				}
			}
			if fails {
				return nil, errors.New("no reply")
			}
			return refused, nil
		}
		config, err := (&Config{MaxInFlight: 16, BatchSize: 1}).filled()
		if err != nil {
			t.Fatal(err)
		}
		l := newLink(nil, "test", Security{}, nil, time.Second)
		s := &session{config: &config, log: config.Logger, status: &status{log: config.Logger}, counters: &counters{}, link: l, base: t.Context()}
		s.newWorkers = func([]*partition) workers { return nil }
		begin := int64(rapid.IntRange(0, 5).Draw(t, "begin"))
		g := newGeneration(s, map[string][]kafka.PartitionAssignment{"t": {{ID: 0, Offset: begin}, {ID: 1, Offset: begin}}}, commitTo)
		models := make([]model, 2)
		seqs := make([]map[int64]uint64, 2)
		for i := range models {
			models[i] = model{settled: map[int64]bool{}, next: begin}
			seqs[i] = map[int64]uint64{}
			broker[i] = begin
			g.partitions[i].located.Store(true)
		}
		check := func() {
			for i, p := range g.partitions {
				if got, want := mark(p.tracker), models[i].watermark(); got != want {
					t.Fatalf("partition %d: got watermark %d, want %d", i, got, want)
				}
				if broker[i] > models[i].watermark() {
					t.Fatalf("partition %d: committed %d, past the unsettled %d", i, broker[i], models[i].watermark())
				}
			}
		}
		ended := false
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"dispatch": func(t *rapid.T) {
				if ended {
					t.Skip("ended")
				}
				i := rapid.IntRange(0, 1).Draw(t, "partition")
				offset := models[i].next + int64(rapid.IntRange(0, 2).Draw(t, "gap"))
				n, first, _ := g.partitions[i].dispatch([]dedup.Message{{Position: dedup.Position{Offset: offset}}})
				if n == 0 {
					t.Skip("full")
				}
				seqs[i][offset] = first
				models[i].dispatched = append(models[i].dispatched, offset)
				models[i].next = offset + 1
			},
			"advance": func(t *rapid.T) {
				if ended {
					t.Skip("ended")
				}
				i := rapid.IntRange(0, 1).Draw(t, "partition")
				models[i].next += int64(rapid.IntRange(0, 3).Draw(t, "by"))
				g.partitions[i].advance(models[i].next)
			},
			"settle": func(t *rapid.T) { // also after the end: a late handler
				i := rapid.IntRange(0, 1).Draw(t, "partition")
				open := slices.Sorted(maps.Keys(seqs[i]))
				if len(open) == 0 {
					t.Skip("nothing in flight")
				}
				offset := rapid.SampledFrom(open).Draw(t, "offset")
				g.partitions[i].settle(seqs[i][offset])
				models[i].settled[offset] = true
				delete(seqs[i], offset)
			},
			"commit": func(t *rapid.T) {
				if ended {
					t.Skip("ended")
				}
				fails, refused = rapid.Bool().Draw(t, "fails"), map[string]error{}
				for _, p := range g.partitions {
					if rapid.Bool().Draw(t, "refused") {
						refused[p.name] = kafka.TopicAuthorizationFailed
					}
				}
				_ = g.commit()
				for i, p := range g.partitions {
					if got := p.committed.Load(); !fails && refused[p.name] == nil && got != broker[i] || got > broker[i] {
						t.Fatalf("partition %d: the broker has %d, noted is %d", i, broker[i], got)
					}
				}
			},
			"end": func(t *rapid.T) {
				ended = true
			},
		})
	})
}

func mark(t *tracker) int64 {
	offset, _ := t.watermark()
	return offset
}

// plenty is a budget that nothing in these tests uses up.
func plenty() *budget { return &budget{maxCount: 1 << 30, maxBytes: 1 << 30} }

// tens makes n messages that count 10 bytes each, with the offsets from 0 on.
func tens(n int) []dedup.Message {
	ms := make([]dedup.Message, n)
	for i := range ms {
		ms[i] = dedup.Message{Value: make([]byte, 9), Position: dedup.Position{Offset: int64(i)}}
	}
	return ms
}

func TestTrackerBoundsCountAndBytes(t *testing.T) {
	ms := tens(6)
	wantDispatched := func(tr *tracker, ms []dedup.Message, want int, why string) {
		t.Helper()
		if n, _, starved := tr.dispatch(ms); n != want || starved {
			t.Errorf("%s: got %d dispatched, starved %v, want %d by its own bounds", why, n, starved, want)
		}
	}
	tr := newTracker(0, 4, 1000, plenty())
	wantDispatched(tr, ms, 4, "room for 4 messages")
	tr.settle(1)
	wantDispatched(tr, ms[4:], 0, "oldest message not settled")
	tr.settle(0)
	wantDispatched(tr, ms[4:], 2, "two settled")

	wantDispatched(newTracker(0, 100, 25, plenty()), ms, 2, "room for 25 bytes, messages of 10")
	wantDispatched(newTracker(0, 100, 5, plenty()), ms, 1, "room for 5 bytes, as there must be progress")
}

func TestBudgetOfAllPartitions(t *testing.T) {
	total := &budget{maxCount: 5, maxBytes: 1000}
	a, b := newTracker(0, 100, 1000, total), newTracker(0, 100, 1000, total)
	ms := tens(10)
	if n, _, starved := a.dispatch(ms); n != 5 || !starved {
		t.Errorf("room for 5 in all: got %d, starved %v", n, starved)
	}
	if n, _, starved := b.dispatch(ms); n != 1 || !starved {
		t.Errorf("none left: got %d, starved %v, want 1, as no partition may starve", n, starved)
	}
	for seq := range uint64(3) {
		a.settle(seq) // out of order or not does not matter for what all have
	}
	if n, _, starved := b.dispatch(ms[1:]); n != 2 || !starved {
		t.Errorf("3 settled, one too many before: got %d, starved %v, want 2", n, starved)
	}
	bytes := &budget{maxCount: 1000, maxBytes: 35}
	if n, _, starved := newTracker(0, 100, 1000, bytes).dispatch(ms); n != 3 || !starved {
		t.Errorf("room for 35 bytes, messages of 10: got %d, starved %v, want 3", n, starved)
	}
}

// TestBudgetWakesWhoWaits lets many partitions share room for few messages: all of
// their messages get through, and none of the room is lost.
func TestBudgetWakesWhoWaits(t *testing.T) {
	total := &budget{maxCount: 3, maxBytes: 1000}
	var partitions sync.WaitGroup
	for range 8 {
		tr := newTracker(0, 4, 1000, total)
		seqs := make(chan uint64, 4)
		partitions.Go(func() {
			defer close(seqs)
			for ms := tens(500); len(ms) > 0; {
				n, first := tr.dispatchSome(t.Context(), ms)
				for i := range n {
					seqs <- first + uint64(i)
				}
				ms = ms[n:]
			}
		})
		partitions.Go(func() {
			for seq := range seqs {
				tr.settle(seq)
			}
		})
	}
	partitions.Wait()
	if count, bytes := total.count.Load(), total.bytes.Load(); count != 0 || bytes != 0 || len(total.waiters) != 0 {
		t.Errorf("in the end: got %d messages, %d bytes and %d waiters, want none", count, bytes, len(total.waiters))
	}
}

func TestDispatchEndsWithItsContext(t *testing.T) {
	total := &budget{maxCount: 1, maxBytes: 1000}
	a, b := newTracker(0, 4, 1000, total), newTracker(0, 4, 1000, total)
	ctx, cancel := context.WithCancel(t.Context())
	a.dispatchSome(ctx, tens(1))
	b.dispatchSome(ctx, tens(1))
	ended := make(chan int)
	go func() {
		n, _ := b.dispatchSome(ctx, tens(2)[1:])
		ended <- n
	}()
	cancel()
	if n := <-ended; n != 0 || len(total.waiters) != 0 {
		t.Errorf("got %d dispatched and %d waiters, want none", n, len(total.waiters))
	}
}

// TestClosedLeavesItsRoom: what a halted partition had in flight is there for the
// others, once.
func TestClosedLeavesItsRoom(t *testing.T) {
	total := &budget{maxCount: 5, maxBytes: 1000}
	a, b, c := newTracker(0, 100, 1000, total), newTracker(0, 100, 1000, total), newTracker(0, 100, 1000, total)
	a.dispatchSome(t.Context(), tens(5))
	waited := make(chan int, 2)
	for _, tr := range []*tracker{b, c} {
		tr.dispatchSome(t.Context(), tens(1))
		go func() {
			n, _ := tr.dispatchSome(t.Context(), tens(2)[1:])
			waited <- n
		}()
	}
	eventually(t, "both wait", func() bool { return total.starving.Load() == 2 })
	a.settle(2)
	a.close()
	for range 2 {
		if n := <-waited; n != 1 {
			t.Errorf("got %d dispatched, want 1", n)
		}
	}
	a.close()
	for seq := range uint64(5) {
		a.settle(seq) // what ran goes on
	}
	if n, _, _ := a.dispatch(tens(6)[5:]); n != 0 {
		t.Error("a closed tracker took a message")
	}
	if count, bytes := total.count.Load(), total.bytes.Load(); count != 4 || bytes != 40 {
		t.Errorf("got %d messages of %d bytes in all, want the 4 of the others, 40 bytes", count, bytes)
	}
	if mark(a) != 5 {
		t.Errorf("got watermark %d, want 5", mark(a))
	}
}

// A log that began anew gives lower offsets, and they are committed.
func TestResetMovesBack(t *testing.T) {
	tr := newTracker(100, 4, 1000, plenty())
	tr.dispatch([]dedup.Message{{Position: dedup.Position{Offset: 100}}})
	if tr.reset(0) {
		t.Error("reset with a message in flight: got true")
	}
	tr.settle(0)
	if !tr.reset(7) || mark(tr) != 7 {
		t.Errorf("reset to 7: got watermark %d", mark(tr))
	}
	if _, resets := tr.watermark(); resets != 1 {
		t.Errorf("got %d resets, want 1", resets)
	}
}
