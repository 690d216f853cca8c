package kafkatransport

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/segmentio/kafka-go"
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
		fails := false
		commitTo := func(offsets map[string]map[int]int64) error {
			for topic, ps := range offsets {
				for p, offset := range ps {
					if topic != "t" || p > 1 {
						t.Fatalf("committed %s/%d, which is not assigned", topic, p)
					}
					if offset < broker[p] {
						t.Fatalf("partition %d: committed %d after %d", p, offset, broker[p])
					}
					broker[p] = offset // also when the reply is lost
				}
			}
			if fails {
				return errors.New("no reply")
			}
			return nil
		}
		config, err := (&Config{MaxInFlight: 16, BatchSize: 1}).filled()
		if err != nil {
			t.Fatal(err)
		}
		s := &session{config: &config, log: config.Logger, status: &status{log: config.Logger}, base: t.Context()}
		s.newWorkers = func([]*partition) workers { return nil }
		begin := int64(rapid.IntRange(0, 5).Draw(t, "begin"))
		g := newGeneration(s, map[string][]kafka.PartitionAssignment{"t": {{ID: 0, Offset: begin}, {ID: 1, Offset: begin}}}, commitTo)
		models := make([]model, 2)
		seqs := make([]map[int64]uint64, 2)
		for i := range models {
			models[i] = model{settled: map[int64]bool{}, next: begin}
			seqs[i] = map[int64]uint64{}
			broker[i] = begin
		}
		check := func() {
			for i, p := range g.partitions {
				if got, want := p.watermark(), models[i].watermark(); got != want {
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
				n, first := g.partitions[i].dispatch([]dedup.Message{{Position: dedup.Position{Offset: offset}}})
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
				fails = rapid.Bool().Draw(t, "fails")
				_ = g.commit()
			},
			"end": func(t *rapid.T) {
				ended = true
			},
		})
	})
}

func TestTrackerBoundsCountAndBytes(t *testing.T) {
	ms := make([]dedup.Message, 6)
	for i := range ms {
		ms[i] = dedup.Message{Value: make([]byte, 9), Position: dedup.Position{Offset: int64(i)}}
	}
	tr := newTracker(0, 4, 1000)
	if n, _ := tr.dispatch(ms); n != 4 {
		t.Errorf("room for 4 messages: got %d dispatched", n)
	}
	tr.settle(1)
	if n, _ := tr.dispatch(ms[4:]); n != 0 {
		t.Errorf("oldest message not settled: got %d more dispatched, want 0", n)
	}
	tr.settle(0)
	if n, _ := tr.dispatch(ms[4:]); n != 2 {
		t.Errorf("two settled: got %d more dispatched, want 2", n)
	}

	tr = newTracker(0, 100, 25) // a message counts 10
	if n, _ := tr.dispatch(ms); n != 2 {
		t.Errorf("room for 25 bytes: got %d messages of 10 dispatched, want 2", n)
	}
	tr = newTracker(0, 100, 5)
	if n, _ := tr.dispatch(ms); n != 1 {
		t.Errorf("room for 5 bytes: got %d messages of 10 dispatched, want 1, as there must be progress", n)
	}
}
