package dedup_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
)

// TestReleaseOfAParkedKey: a message under a parked key does not run, until the
// key is released. The replay starts over, flagged if the run that was parked may
// have had its effect.
func TestReleaseOfAParkedKey(t *testing.T) {
	for name, c := range map[string]struct {
		err       error
		o         dedup.Options
		ambiguous bool
	}{
		"failed for good":                 {dedup.Permanent(errBroken), dedup.Options{}, false},
		"failed for good, and maybe done": {dedup.Permanent(dedup.MaybeDone(errBroken)), dedup.Options{}, true},
		"failed too often":                {errBroken, dedup.Options{MaxAttempts: 1}, false},
		"failed too often, maybe done":    {dedup.MaybeDone(errBroken), dedup.Options{MaxAttempts: 1}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var l letters
			c.o.DeadLetter = l.send
			d := newDedup(t, newStore(), &c.o)
			h := fails(c.err, 1)
			want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Parked, true)
			r := d.Do(t.Context(), message("k", "v"), h.handle)
			want(t, r, dedup.AlreadyParked, true)
			if h.runs() != 1 || len(l.whys) != 1 || !errors.Is(l.whys[0], errBroken) || !strings.Contains(r.Err.Error(), errBroken.Error()) {
				t.Errorf("got %d runs, dead letters for %v, err %v; want 1 run, 1 dead letter and its reason", h.runs(), l.whys, r.Err)
			}
			for range 2 { // once more changes nothing
				if err := d.Release(t.Context(), "k"); err != nil {
					t.Fatal(err)
				}
			}
			want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
			if got := h.claim(2); got.Ambiguous != c.ambiguous || got.Attempt != 1 || got.Token <= h.claim(1).Token {
				t.Errorf("replay: got %+v after %+v, want the first attempt, Ambiguous %t, and a greater token", got, h.claim(1), c.ambiguous)
			}
		})
	}
}

// TestReleaseAfterARunThatDied: a run died, and the next one was parked before its
// effect. The replay is flagged: the first run may have had its.
func TestReleaseAfterARunThatDied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		dead := driver.Op{Kind: driver.OpClaim, ID: dedup.NewID("orders", "k"), Nonce: 1, Lease: time.Second, TTL: time.Hour}
		if _, err := s.Apply(t.Context(), []driver.Op{dead}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		var l letters
		d := newDedup(t, s, &dedup.Options{DeadLetter: l.send})
		h := fails(dedup.Permanent(errBroken), 1)
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Parked, true)
		if err := d.Release(t.Context(), "k"); err != nil {
			t.Fatal(err)
		}
		want(t, d.Do(t.Context(), message("k", "v"), h.handle), dedup.Processed, true)
		if !h.claim(1).Ambiguous || !h.claim(2).Ambiguous {
			t.Errorf("got %+v, then %+v, want both Ambiguous", h.claim(1), h.claim(2))
		}
	})
}

func TestReleaseOfOtherKeys(t *testing.T) {
	var l letters
	s := newStore()
	d := newDedup(t, s, &dedup.Options{DeadLetter: l.send})
	poison := func(context.Context, *dedup.Message) ([]byte, error) { return nil, dedup.Permanent(errBroken) }
	for _, key := range []string{"parked", "parked too"} {
		want(t, d.Do(t.Context(), message(key, "v"), poison), dedup.Parked, true)
	}
	want(t, d.Do(t.Context(), message("done", "v"), (&handler{}).handle), dedup.Processed, true)
	want(t, d.Do(t.Context(), message("released", "v"), fails(errBroken, 1).handle), dedup.Failed, false)
	if err := d.Release(t.Context()); err != nil {
		t.Errorf("no keys: got %v", err)
	}
	if err := d.Release(t.Context(), "unknown", "released"); err != nil {
		t.Errorf("a key without a record, and a released one: got %v, want no error", err)
	}
	r := d.Do(t.Context(), message("busy", "v"), func(ctx context.Context, _ *dedup.Message) ([]byte, error) {
		err := d.Release(ctx, "parked", "done", "busy", "parked too", "busy")
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), dedup.NewID("orders", "done").String()) || !strings.Contains(err.Error(), "2 other keys") {
			t.Errorf("got %v, want one line with the first that is refused, and how many others", err)
		}
		if err := d.Release(ctx, "busy"); !errors.Is(err, dedup.ErrBusy) {
			t.Errorf("a claimed key: got %v, want ErrBusy", err)
		}
		if err := d.Release(ctx, "done"); err == nil || errors.Is(err, dedup.ErrBusy) || errors.Is(err, dedup.ErrStore) {
			t.Errorf("a completed key: got %v, want an error of its own", err)
		}
		return nil, nil
	})
	want(t, r, dedup.Processed, true)
	for key, outcome := range map[string]dedup.Outcome{
		"parked": dedup.Processed, "parked too": dedup.Processed, "done": dedup.Duplicate, "busy": dedup.Duplicate, "released": dedup.Processed,
	} {
		h := &handler{}
		if r := d.Do(t.Context(), message(key, "v"), h.handle); r.Outcome != outcome {
			t.Errorf("%s after the release: got %v, %v, want %v", key, r.Outcome, r.Err, outcome)
		}
	}
}

func TestReleaseOfManyKeys(t *testing.T) {
	s := newStore()
	d := newDedup(t, s, nil)
	keys := make([]dedup.Key, driver.MaxBatch+1)
	for i := range keys {
		keys[i] = dedup.Key("k" + string(rune('0'+i)))
	}
	if err := d.Release(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	if got := s.sent(driver.OpUnpark); got != len(keys) {
		t.Errorf("got %d operations, want %d", got, len(keys))
	}
}

func TestReleaseWhenTheStoreFails(t *testing.T) {
	s := newStore()
	var l letters
	d := newDedup(t, s, &dedup.Options{DeadLetter: l.send})
	want(t, d.Do(t.Context(), message("k", "v"), fails(dedup.Permanent(errBroken), 1).handle), dedup.Parked, true)
	s.mu.Lock()
	s.after = loseReplies(driver.OpUnpark, 1)
	s.mu.Unlock()
	if err := d.Release(t.Context(), "k"); err != nil {
		t.Errorf("a reply is lost: got %v, want it sent again", err)
	}
	s.mu.Lock()
	s.before = func([]driver.Op) error { return errBroken }
	s.mu.Unlock()
	if err := d.Release(t.Context(), "k"); !errors.Is(err, dedup.ErrStore) || !errors.Is(err, errBroken) {
		t.Errorf("the store is down: got %v, want ErrStore and why", err)
	}
	s.mu.Lock()
	s.before = nil
	s.mu.Unlock()
	want(t, d.Do(t.Context(), message("k", "v"), (&handler{}).handle), dedup.Processed, true)
	if err := d.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.Release(t.Context(), "k"); !errors.Is(err, dedup.ErrClosed) {
		t.Errorf("after Shutdown: got %v, want ErrClosed", err)
	}
}

// TestAlreadyParkedIsToldWithItsRemedy: once a second, and not for a redelivery of
// the message that was parked.
func TestAlreadyParkedIsToldWithItsRemedy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var l letters
		var outcomes []dedup.Outcome
		d := newDedup(t, newStore(), &dedup.Options{
			DeadLetter: l.send, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Hooks: dedup.Hooks{Decided: func(e dedup.Event) { outcomes = append(outcomes, e.Result.Outcome) }},
		})
		m := message("k", "v")
		want(t, d.Do(t.Context(), m, fails(dedup.Permanent(errBroken), 1).handle), dedup.Parked, true)
		log.Reset()
		want(t, d.Do(t.Context(), m, ok), dedup.AlreadyParked, true)
		if log.Len() > 0 {
			t.Errorf("a redelivery: got %s, want nothing", log.String())
		}
		for range 3 {
			want(t, d.Do(t.Context(), message("k", "v"), ok), dedup.AlreadyParked, true)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("got %d lines, want one:\n%s", n, log.String())
		}
		time.Sleep(time.Second)
		want(t, d.Do(t.Context(), message("k", "v"), ok), dedup.AlreadyParked, true)
		for _, word := range []string{"level=WARN", "release the key", "publish the message again", "outcome=already_parked", "suppressed=2", dedup.NewID("orders", "k").String()} {
			if !strings.Contains(log.String(), word) {
				t.Errorf("got %s, want a line with %q", log.String(), word)
			}
		}
		if len(outcomes) != 6 || outcomes[5] != dedup.AlreadyParked {
			t.Errorf("the hook was told %v, want the outcome of its own", outcomes)
		}
	})
}

// TestCopiesInABatchOfAParkedMessage: one of them is parked, and the others are
// under a parked key.
func TestCopiesInABatchOfAParkedMessage(t *testing.T) {
	var l letters
	d := newDedup(t, newStore(), &dedup.Options{DeadLetter: l.send})
	rs := d.DoBatch(t.Context(), []*dedup.Message{message("k", "v"), message("k", "v"), message("k", "v")}, func(_ context.Context, ms []*dedup.Message) []dedup.Answer {
		return []dedup.Answer{{Err: dedup.Permanent(errBroken)}}
	})
	want(t, rs[0], dedup.Parked, true)
	want(t, rs[1], dedup.AlreadyParked, true)
	want(t, rs[2], dedup.AlreadyParked, true)
	if len(l.whys) != 1 {
		t.Errorf("got %d dead letters, want 1", len(l.whys))
	}
}

// TestFingerprintName: after a deployment with another fingerprint function,
// messages are compared with the records that it made, and with no others.
func TestFingerprintName(t *testing.T) {
	s := newStore()
	topics := func(m *dedup.Message) dedup.Fingerprint {
		m = &dedup.Message{Value: []byte(m.Topic)}
		return dedup.PayloadFingerprint(m)
	}
	before := newDedup(t, s, nil)
	unnamed := newDedup(t, s, &dedup.Options{Fingerprint: topics})
	after := newDedup(t, s, &dedup.Options{Fingerprint: topics, FingerprintName: "topic"})
	want(t, before.Do(t.Context(), message("done", "v"), ok), dedup.Processed, true)
	want(t, before.Do(t.Context(), message("released", "v"), fails(errBroken, 1).handle), dedup.Failed, false)

	want(t, unnamed.Do(t.Context(), message("done", "v"), ok), dedup.Conflict, false)
	want(t, after.Do(t.Context(), message("done", "v"), ok), dedup.Duplicate, true)
	want(t, after.Do(t.Context(), message("released", "v"), ok), dedup.Processed, true)
	other := message("released", "v")
	other.Topic = "another"
	want(t, after.Do(t.Context(), other, ok), dedup.Conflict, false)
	want(t, before.Do(t.Context(), message("released", "another payload"), ok), dedup.Duplicate, true)
}
