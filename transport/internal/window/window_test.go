package window

import (
	"context"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/oncequeue/oncequeue/dedup"
)

// plenty is a Budget that nothing in these tests uses up.
func plenty() *Budget { return NewBudget(1<<30, 1<<30) }

// roomy are Bounds of that many messages only.
func roomy(messages int) Bounds { return Bounds{Messages: messages, Bytes: 1 << 30, Ahead: 1 << 30} }

// tens makes n messages that count 10 bytes each, with the offsets from 0 on.
func tens(n int) []dedup.Message {
	ms := make([]dedup.Message, n)
	for i := range ms {
		ms[i] = dedup.Message{Value: make([]byte, 9), Position: dedup.Position{Offset: int64(i)}}
	}
	return ms
}

func mark(w *Window) int64 {
	offset, _ := w.Watermark()
	return offset
}

// TestWatermarkIsTheContiguousPrefix settles messages in random order: the watermark
// is always that of a plain model, and the messages in flight stay within the bounds.
func TestWatermarkIsTheContiguousPrefix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Bounds{Messages: rapid.IntRange(1, 16).Draw(t, "messages"), Bytes: rapid.IntRange(1, 200).Draw(t, "bytes"), Ahead: rapid.Int64Range(1, 40).Draw(t, "ahead")}
		next := rapid.Int64Range(0, 5).Draw(t, "begin")
		total := plenty()
		w := New(next, b, total)
		open := map[int64]*Flight{}
		var settled []*Flight
		oldest := func() int64 {
			if len(open) == 0 {
				return next
			}
			return slices.Min(slices.Collect(maps.Keys(open)))
		}
		last := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				got := mark(w)
				if got != oldest() || got < last {
					t.Fatalf("got watermark %d after %d, want %d", got, last, oldest())
				}
				last = got
				l := w.Load()
				if l.Messages != len(open) || l.Bytes != 10*len(open) || total.count.Load() != int64(len(open)) {
					t.Fatalf("got %+v, and %d in all, want %d messages of 10 bytes", l, total.count.Load(), len(open))
				}
				if len(open) > b.Messages || len(open) > 1 && 10*len(open) > b.Bytes {
					t.Fatalf("got %d messages of 10 bytes in flight, out of the bounds %+v", len(open), b)
				}
				if len(open) > 0 && l.Ahead != next-oldest() {
					t.Fatalf("got %d offsets ahead, want %d", l.Ahead, next-oldest())
				}
			},
			"dispatch": func(t *rapid.T) {
				offset := next + rapid.Int64Range(0, 2).Draw(t, "gap")
				flights, why := w.TryDispatch([]dedup.Message{{Value: make([]byte, 9), Position: dedup.Position{Offset: offset}}})
				want := Open
				switch n := len(open); {
				case n >= b.Messages, n > 0 && 10*n+10 > b.Bytes:
					want = Full
				case n > 0 && offset-oldest() >= b.Ahead:
					want = FarAhead
				}
				if why != want || (len(flights) == 1) != (want == Open) {
					t.Fatalf("offset %d: got %d flights, reason %d, want reason %d", offset, len(flights), why, want)
				}
				if len(flights) == 1 {
					open[offset], next = flights[0], offset+1
				}
			},
			"advance": func(t *rapid.T) {
				next += rapid.Int64Range(0, 3).Draw(t, "by")
				w.Advance(next)
			},
			"settle": func(t *rapid.T) {
				if len(open) == 0 {
					t.Skip("nothing in flight")
				}
				offset := rapid.SampledFrom(slices.Sorted(maps.Keys(open))).Draw(t, "offset")
				open[offset].Settle()
				settled = append(settled, open[offset])
				delete(open, offset)
			},
			"settle again": func(t *rapid.T) {
				if len(settled) > 0 {
					rapid.SampledFrom(settled).Draw(t, "flight").Settle()
				}
			},
		})
	})
}

// A million settled messages behind one that is not cost no memory to speak of.
func TestOneUnsettledMessageBehindAMillion(t *testing.T) {
	const ahead = 1_000_000
	w := New(0, Bounds{Messages: 4, Bytes: 1 << 20, Ahead: ahead}, plenty())
	stuck := w.Dispatch(t.Context(), tens(1))[0]
	m := tens(1)
	for offset := range int64(ahead - 1) {
		m[0].Position.Offset = offset + 1
		flights, why := w.TryDispatch(m)
		if why != Open {
			t.Fatalf("offset %d: got reason %d, want room", offset+1, why)
		}
		flights[0].Settle()
	}
	m[0].Position.Offset = ahead
	if _, why := w.TryDispatch(m); why != FarAhead || w.Load().Blocked != FarAhead {
		t.Errorf("a million ahead: got reason %d, want FarAhead", why)
	}
	if l := w.Load(); mark(w) != 0 || l.Messages != 1 || l.Ahead != ahead || !w.FarBehind() {
		t.Errorf("got watermark %d and %+v, want 0, one message, a million ahead", mark(w), l)
	}
	stuck.Settle()
	if mark(w) != ahead {
		t.Errorf("settled: got watermark %d, want %d", mark(w), ahead)
	}
	if _, why := w.TryDispatch(m); why != Open {
		t.Errorf("settled: got reason %d, want room", why)
	}
}

func TestBudgetOfAllPartitions(t *testing.T) {
	total := NewBudget(5, 1000)
	a, b := New(0, roomy(100), total), New(0, roomy(100), total)
	ms := tens(10)
	flights, why := a.TryDispatch(ms)
	if len(flights) != 5 || why != Starved {
		t.Errorf("room for 5 in all: got %d, reason %d", len(flights), why)
	}
	if got, why := b.TryDispatch(ms); len(got) != 1 || why != Starved {
		t.Errorf("none left: got %d, reason %d, want 1, as no partition may starve", len(got), why)
	}
	for _, f := range flights[:3] {
		f.Settle()
	}
	if got, why := b.TryDispatch(ms[1:]); len(got) != 2 || why != Starved {
		t.Errorf("3 settled, one too many before: got %d, reason %d, want 2", len(got), why)
	}
	if got, why := New(0, roomy(100), NewBudget(1000, 35)).TryDispatch(ms); len(got) != 3 || why != Starved {
		t.Errorf("room for 35 bytes, messages of 10: got %d, reason %d, want 3", len(got), why)
	}
}

// TestBudgetWakesWhoWaits lets many partitions share room for few messages: all of
// their messages get through, and none of the room is lost.
func TestBudgetWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := NewBudget(3, 1000)
		for range 8 {
			w := New(0, roomy(4), total)
			flights := make(chan *Flight, 4)
			go func() {
				defer close(flights)
				for ms := tens(500); len(ms) > 0; {
					got := w.Dispatch(t.Context(), ms)
					for _, f := range got {
						flights <- f
					}
					ms = ms[len(got):]
				}
			}()
			go func() {
				for f := range flights {
					f.Settle()
				}
			}()
		}
		synctest.Wait()
		if count, bytes := total.count.Load(), total.bytes.Load(); count != 0 || bytes != 0 || len(total.waiters) != 0 {
			t.Errorf("in the end: got %d messages, %d bytes and %d waiters, want none", count, bytes, len(total.waiters))
		}
	})
}

func TestDispatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := NewBudget(1, 1000)
		a, b := New(0, roomy(4), total), New(0, roomy(4), total)
		ctx, cancel := context.WithCancel(t.Context())
		a.Dispatch(ctx, tens(1))
		b.Dispatch(ctx, tens(1))
		ended := make(chan int, 1)
		go func() { ended <- len(b.Dispatch(ctx, tens(2)[1:])) }()
		synctest.Wait()
		if len(total.waiters) != 1 {
			t.Errorf("got %d waiters, want 1", len(total.waiters))
		}
		cancel()
		if n := <-ended; n != 0 || len(total.waiters) != 0 {
			t.Errorf("got %d dispatched and %d waiters, want none", n, len(total.waiters))
		}
	})
}

// TestClosedLeavesItsRoom: what a halted partition had in flight is there for the
// others, once.
func TestClosedLeavesItsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := NewBudget(5, 1000)
		a := New(0, roomy(100), total)
		flights := a.Dispatch(t.Context(), tens(5))
		waited := make(chan int, 2)
		for range 2 {
			w := New(0, roomy(100), total)
			w.Dispatch(t.Context(), tens(1))
			go func() { waited <- len(w.Dispatch(t.Context(), tens(2)[1:])) }()
		}
		synctest.Wait()
		flights[2].Settle()
		a.Close()
		for range 2 {
			if n := <-waited; n != 1 {
				t.Errorf("got %d dispatched, want 1", n)
			}
		}
		a.Close()
		for _, f := range flights {
			f.Settle() // the running handlers go on
		}
		if got, why := a.TryDispatch(tens(6)[5:]); len(got) != 0 || why != Closed {
			t.Error("a closed Window took a message")
		}
		if count, bytes := total.count.Load(), total.bytes.Load(); count != 4 || bytes != 40 {
			t.Errorf("got %d messages of %d bytes in all, want the 4 of the others, 40 bytes", count, bytes)
		}
		if mark(a) != 5 {
			t.Errorf("got watermark %d, want 5", mark(a))
		}
	})
}

// A log that began anew gives lower offsets, and they are committed.
func TestResetMovesBack(t *testing.T) {
	w := New(100, roomy(4), plenty())
	flights := w.Dispatch(t.Context(), []dedup.Message{{Position: dedup.Position{Offset: 100}}})
	if w.Reset(0) {
		t.Error("reset with a message in flight: got true")
	}
	flights[0].Settle()
	if !w.Reset(7) || mark(w) != 7 {
		t.Errorf("reset to 7: got watermark %d", mark(w))
	}
	if _, resets := w.Watermark(); resets != 1 {
		t.Errorf("got %d resets, want 1", resets)
	}
}

func TestLoadTellsSinceWhen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := New(0, roomy(4), plenty())
		if l := w.Load(); !l.Oldest.IsZero() {
			t.Errorf("nothing in flight: got %+v", l)
		}
		begin := time.Now()
		w.Dispatch(t.Context(), tens(1))
		time.Sleep(time.Second)
		w.Dispatch(t.Context(), tens(2)[1:])
		if l := w.Load(); !l.Oldest.Equal(begin) {
			t.Errorf("got the oldest since %v, want since %v", l.Oldest, begin)
		}
	})
}
