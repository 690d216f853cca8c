package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// answerTo is the answer that both handlers of the property test give to a message.
func answerTo(m *dedup.Message) dedup.Answer {
	base := errors.New("broken pipe")
	switch v := string(m.Value); {
	case strings.HasPrefix(v, "fails"):
		return dedup.Answer{Err: dedup.RetryAfter(base, time.Minute)}
	case strings.HasPrefix(v, "down"):
		return dedup.Answer{Err: dedup.Transient(dedup.RetryAfter(base, time.Minute))}
	case strings.HasPrefix(v, "perhaps"):
		return dedup.Answer{Err: dedup.MaybeDone(dedup.RetryAfter(base, time.Minute))}
	case strings.HasPrefix(v, "poison"):
		return dedup.Answer{Err: dedup.RetryAfter(dedup.Permanent(base), time.Minute)}
	}
	return dedup.Answer{Result: append([]byte("result of "), m.Value...)}
}

// rounded processes messages by DoRound, again and again those that had to wait for
// another of their own round.
func rounded(t *testing.T, d *dedup.Deduplicator, ms []*dedup.Message) []dedup.Result {
	results := make([]dedup.Result, len(ms))
	var left []int
	for i := range ms {
		left = append(left, i)
	}
	for len(left) > 0 {
		var batch []*dedup.Message
		for _, i := range left {
			batch = append(batch, ms[i])
		}
		var waits []bool
		rs := d.Transport().DoRound(t.Context(), batch, func(_ context.Context, r *dedup.Round) {
			waits = make([]bool, len(batch))
			for i, m := range batch {
				switch s := r.At(i); s.Kind {
				case dedup.StandingRun:
					if a := answerTo(m); a.Err != nil {
						r.Fail(i, a.Err)
					} else {
						r.Complete(i, a.Result)
					}
				case dedup.StandingWait:
					waits[i] = s.Result.Outcome == 0
				case dedup.StandingFollow:
					if s.Leader >= i || string(batch[s.Leader].Value) != string(m.Value) {
						t.Errorf("message %d follows %d", i, s.Leader)
					}
				case dedup.StandingSettled:
					if !s.Result.Settled() {
						t.Errorf("message %d: got %+v for a settled one", i, s.Result)
					}
				}
			}
		})
		var rest []int
		for j, i := range left {
			results[i] = rs[j]
			if waits[j] {
				rest = append(rest, i)
			}
		}
		if len(rest) == len(left) {
			t.Fatalf("no message of %d gets on", len(left))
		}
		left = rest
	}
	return results
}

// A round comes to the same results and records as a batch, whatever the messages,
// the records of before and the policies are.
func TestRoundPropertyAsBatch(t *testing.T) {
	policies := []dedup.Policy{dedup.PolicyProcess, dedup.PolicyPark, dedup.PolicySkip, dedup.PolicyHalt}
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			pick := func(from ...dedup.Policy) dedup.Policy { return from[random.IntN(len(from))] }
			o := &dedup.Options{
				OnUnkeyed:   pick(policies[0], policies[1], policies[3]),
				OnConflict:  pick(policies[1], policies[2], policies[3]),
				OnAmbiguous: pick(policies[0], policies[1], policies[3]),
				MaxAttempts: 1 + random.IntN(3),
			}
			type way struct {
				d       *dedup.Deduplicator
				s       *faulty
				letters atomic.Int32
				do      func([]*dedup.Message) []dedup.Result
			}
			ways := []*way{{}, {}}
			for _, w := range ways {
				c := *o
				c.DeadLetter = func(_ context.Context, m *dedup.Message, _ error) error {
					if strings.HasSuffix(string(m.Value), "2") {
						return errors.New("no dead letters")
					}
					w.letters.Add(1)
					return nil
				}
				w.s = newStore()
				w.d = newDedup(t, w.s, &c)
			}
			ways[0].do = func(ms []*dedup.Message) []dedup.Result {
				return ways[0].d.DoBatch(t.Context(), ms, func(_ context.Context, ms []*dedup.Message) (as []dedup.Answer) {
					for _, m := range ms {
						as = append(as, answerTo(m))
					}
					return as
				})
			}
			ways[1].do = func(ms []*dedup.Message) []dedup.Result { return rounded(t, ways[1].d, ms) }
			kinds := []string{"good", "fails", "down", "perhaps", "poison"}
			for range 4 {
				var ms []*dedup.Message
				for range 1 + random.IntN(8) {
					key := string("\x00abcd"[random.IntN(5)])
					ms = append(ms, message(strings.Trim(key, "\x00"), kinds[random.IntN(len(kinds))]+fmt.Sprint(random.IntN(3))))
				}
				var got [2][]string
				for w := range ways {
					var copies []*dedup.Message
					for _, m := range ms {
						c := *m
						copies = append(copies, &c)
					}
					for _, r := range ways[w].do(copies) {
						if r.Settled() || r.Outcome == dedup.Failed && !r.Halt && r.RetryAfter != time.Minute {
							r.RetryAfter = 0 // at random
						}
						text := fmt.Sprintf("%v settled %t halt %t after %v value %q first %v", r.Outcome, r.Settled(), r.Halt, r.RetryAfter/time.Minute, r.Value, r.First)
						if r.Err != nil {
							text += " " + r.Err.Error()
						}
						got[w] = append(got[w], text)
					}
				}
				if !reflect.DeepEqual(got[0], got[1]) {
					t.Fatalf("seed %d, %+v:\n batch %q\n round %q", seed, *o, got[0], got[1])
				}
				if a, b := recordsOf(t, ways[0].s), recordsOf(t, ways[1].s); !reflect.DeepEqual(a, b) {
					t.Fatalf("seed %d:\n after the batch %q\n after the round %q", seed, a, b)
				}
				time.Sleep(time.Second)
			}
			if a, b := ways[0].letters.Load(), ways[1].letters.Load(); a != b {
				t.Errorf("seed %d: got %d and %d dead letters", seed, a, b)
			}
		})
	}
}

// recordsOf returns the parts of the store's records that a run decides.
func recordsOf(t *testing.T, s *faulty) map[driver.ID]string {
	all := map[driver.ID]string{}
	for r, err := range s.Records(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all[r.ID] = fmt.Sprintf("%v attempt %d ambiguous %t first %v result %q", r.State, r.Attempt, r.Ambiguous, r.First, r.Result)
	}
	return all
}

// The handler parks what it has written dead letters for, and Options.DeadLetter is not
// needed.
func TestRoundParks(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	why := errors.New("too large")
	ms := messages("good", "poison")
	rs := d.Transport().DoRound(t.Context(), ms, func(_ context.Context, r *dedup.Round) {
		r.Complete(0, []byte("sent"))
		r.Park(1, why)
	})
	want(t, rs[0], dedup.Processed, true)
	want(t, rs[1], dedup.Parked, true)
	if !errors.Is(rs[1].Err, why) {
		t.Errorf("got %v, want the reason", rs[1].Err)
	}
	for _, r := range d.Transport().DoRound(t.Context(), messages("poison"), func(_ context.Context, r *dedup.Round) {
		if s := r.At(0); s.Kind != dedup.StandingSettled || s.Result.Outcome != dedup.AlreadyParked {
			t.Errorf("got %+v for a parked key", s)
		}
	}) {
		want(t, r, dedup.AlreadyParked, true)
	}
}

// A message that is to be parked by a policy can be parked by the handler, and
// Options.DeadLetter is called for it only if the handler does not.
func TestRoundParksByPolicy(t *testing.T) {
	for _, self := range []bool{false, true} {
		letters := 0
		d := newDedup(t, newStore(), &dedup.Options{DeadLetter: func(context.Context, *dedup.Message, error) error { letters++; return nil }})
		ms := []*dedup.Message{message("", "v")}
		rs := d.Transport().DoRound(t.Context(), ms, func(_ context.Context, r *dedup.Round) {
			s := r.At(0)
			if s.Kind != dedup.StandingPark || !errors.Is(s.Result.Err, dedup.ErrNoKey) {
				t.Errorf("got %+v, want a message to park", s)
			}
			if self {
				r.Park(0, s.Result.Err)
			}
		})
		want(t, rs[0], dedup.Unkeyed, true)
		if (letters == 0) != self {
			t.Errorf("parked by the handler: %t; got %d dead letters", self, letters)
		}
	}
}

// A message without an answer runs again as if it had not been tried.
func TestRoundGivesBack(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	ms := messages("a", "b")
	rs := d.Transport().DoRound(t.Context(), ms, func(_ context.Context, r *dedup.Round) { r.Complete(1, nil) })
	want(t, rs[0], dedup.Unavailable, false)
	want(t, rs[1], dedup.Processed, true)
	d.Transport().DoRound(t.Context(), messages("a"), func(_ context.Context, r *dedup.Round) {
		if r.At(0).Kind != dedup.StandingRun {
			t.Errorf("got %+v, want a message to run", r.At(0))
		}
	})
	h := &handler{}
	want(t, d.Do(t.Context(), message("a", "v"), h.handle), dedup.Processed, true)
	if c := h.claim(1); c.Attempt != 1 || c.Ambiguous {
		t.Errorf("got claim %+v, want a first attempt", c)
	}
}

// Answers of a handler that panics do not count.
func TestRoundPanics(t *testing.T) {
	d := newDedup(t, newStore(), nil)
	for _, r := range d.Transport().DoRound(t.Context(), messages("a", "b", "c"), func(_ context.Context, r *dedup.Round) {
		r.Complete(0, nil)
		r.Park(1, errors.New("poison"))
		panic("odd")
	}) {
		want(t, r, dedup.Failed, false)
	}
	h := &handler{}
	for _, r := range d.DoBatch(t.Context(), messages("a", "b", "c"), h.batched) {
		want(t, r, dedup.Processed, true)
	}
	if c := h.claim(1); !c.Ambiguous || c.Attempt != 2 {
		t.Errorf("got claim %+v, want a second attempt, ambiguous", c)
	}
}

// A round waits for nobody: two rounds over the same keys both come to an end.
func TestRoundWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDedup(t, newStore(), nil)
		start := time.Now()
		d.Transport().DoRound(t.Context(), messages("a", "x"), func(ctx context.Context, r *dedup.Round) {
			rs := d.Transport().DoRound(context.Background(), messages("y", "x"), func(_ context.Context, inner *dedup.Round) {
				if a, b := inner.At(0), inner.At(1); a.Kind != dedup.StandingRun || b.Kind != dedup.StandingWait {
					t.Errorf("got %+v, %+v, want one to run and one that waits", a, b)
				}
				inner.Complete(0, nil)
			})
			want(t, rs[0], dedup.Processed, true)
			want(t, rs[1], dedup.Busy, false)
			r.Complete(0, nil)
			r.Complete(1, nil)
		})
		if took := time.Since(start); took != 0 {
			t.Errorf("the rounds took %v", took)
		}
	})
}

// The handler is called for duplicates alone, as its caller may have positions to
// commit; and not once the context has ended.
func TestRoundIsCalledForDuplicates(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	d.Do(t.Context(), message("a", "v"), (&handler{}).handle)
	called := 0
	for _, r := range d.Transport().DoRound(t.Context(), messages("a", "a"), func(_ context.Context, r *dedup.Round) {
		called++
		if first, second := r.At(0), r.At(1); first.Kind != dedup.StandingSettled || second.Kind != dedup.StandingFollow || second.Leader != 0 {
			t.Errorf("got %+v, %+v, want a settled message and its follower", first, second)
		}
	}) {
		want(t, r, dedup.Duplicate, true)
	}
	if got := d.Transport().DoRound(t.Context(), nil, func(context.Context, *dedup.Round) { called++ }); len(got) != 0 || called != 2 {
		t.Errorf("got %d calls, want one for the duplicates and one for no messages", called)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range d.Transport().DoRound(ctx, messages("b"), func(context.Context, *dedup.Round) { t.Error("called after the end of its context") }) {
		want(t, r, dedup.Unavailable, false)
	}
}

// A dead letter goes out only under a living claim: the handler is not called once that
// of a message to park is lost.
func TestRoundWhoseClaimIsLostWritesNoDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		confirmed := errors.New("no dead letters yet")
		d := newDedup(t, s, &dedup.Options{
			Concurrency: 1, Lease: time.Second, MaxAttempts: 1,
			DeadLetter: func(context.Context, *dedup.Message, error) error { return confirmed },
		})
		fails := func(context.Context, *dedup.Message) ([]byte, error) { return nil, errors.New("odd") }
		want(t, d.Do(t.Context(), message("a", "v"), fails), dedup.Failed, false)
		lost := dedup.NewID("orders", "a")
		s.after = func(ops []driver.Op, replies []driver.Reply) {
			for i, op := range ops {
				if op.Kind == driver.OpExtend && op.ID == lost {
					replies[i].Status = driver.StatusLost
				}
			}
		}
		go d.Do(context.Background(), message("holds the slot", "v"), func(context.Context, *dedup.Message) ([]byte, error) {
			time.Sleep(5 * time.Second)
			return nil, nil
		})
		synctest.Wait()
		for _, r := range d.Transport().DoRound(t.Context(), messages("a"), func(context.Context, *dedup.Round) {
			t.Error("called without the claim")
		}) {
			if r.Settled() || !errors.Is(r.Err, dedup.ErrLeaseLost) {
				t.Errorf("got %v, %v, want a message whose lease was lost", r.Outcome, r.Err)
			}
		}
	})
}
