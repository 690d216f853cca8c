package dedup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oncequeue/oncequeue/dedup"
	"github.com/oncequeue/oncequeue/dedup/driver"
	memstore "github.com/oncequeue/oncequeue/store/mem"
)

// Each kind of line has its own limit, and no panic's stack is dropped.
func TestLinesDoNotHideEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logged
		d := newDedup(t, newStore(), &dedup.Options{Logger: l.logger(slog.LevelInfo), OnUnkeyed: dedup.PolicyProcess})
		for i := range 20 {
			key := fmt.Sprint(i)
			d.Do(t.Context(), message("failed"+key, "v"), fails(errBroken, 1).handle)
			d.Do(t.Context(), message("panic"+key, "v"), func(context.Context, *dedup.Message) ([]byte, error) { return bangs() })
			d.Do(t.Context(), message("transient"+key, "v"), func(context.Context, *dedup.Message) ([]byte, error) { panic(dedup.Transient(errBroken)) })
			d.Do(t.Context(), message("ambiguous"+key, "v"), fails(dedup.MaybeDone(dedup.Transient(errBroken)), 1).handle)
			d.Do(t.Context(), message("ambiguous"+key, "v"), ok)
			old := message("stale"+key, "v")
			old.Published = time.Unix(-1e6, 0)
			d.Do(t.Context(), old, ok)
		}
		l.count(t, 1, "the handler failed")
		l.count(t, 1, "processed a message whose earlier run may have had its effect")
		l.count(t, 1, "processed a message older than the store's memory")
		l.count(t, 20, "the handler panicked", "dedup_test.bangs(")
		l.count(t, 40, "the handler panicked", "stack=")
		time.Sleep(time.Second)
		d.Do(t.Context(), message("last", "v"), fails(errBroken, 1).handle)
		l.count(t, 1, "the handler failed", "suppressed=19")
	})
}

//go:noinline
func bangs() ([]byte, error) { panic("bang") }

// A panic whose message was parked, while another run took the key over, is told with its stack.
func TestPanicBeforeALostRecordIsTold(t *testing.T) {
	var l logged
	s := newStore()
	d := newDedup(t, s, &dedup.Options{MaxAttempts: 1, Logger: l.logger(slog.LevelInfo), DeadLetter: func(ctx context.Context, m *dedup.Message, _ error) error {
		return s.ForceForget(ctx, []dedup.ID{m.Claim.ID})
	}})
	s.before = func(ops []driver.Op) error { // another run claims the key
		if ops[0].Kind != driver.OpPark {
			return nil
		}
		s.before = nil
		op := driver.Op{Kind: driver.OpClaim, ID: ops[0].ID, Nonce: 99, Lease: time.Hour, TTL: time.Hour, Floor: ops[0].Token}
		_, err := s.Apply(context.Background(), []driver.Op{op})
		return err
	}
	want(t, d.Do(t.Context(), message("k", "v"), func(context.Context, *dedup.Message) ([]byte, error) { return bangs() }), dedup.Uncertain, false)
	l.count(t, 1, "bang", "dedup_test.bangs(")
}

// The messages of a batch share the panic of its handler, which is told once.
func TestPanicOfABatchIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l logged
		d := newDedup(t, newStore(), &dedup.Options{Logger: l.logger(slog.LevelInfo)})
		var ms []*dedup.Message
		for i := range 100 {
			ms = append(ms, message(fmt.Sprint(i), "v"))
		}
		d.DoBatch(t.Context(), ms, func(context.Context, []*dedup.Message) []dedup.Answer { panic("bang") })
		if n := strings.Count(l.String(), "stack="); n < 1 || n > 2 {
			t.Errorf("got %d stacks, want one, or one more as the first of its kind", n)
		}
	})
}

// While a store is fresh, messages older than it are flagged; a line says why and until when.
func TestFreshStoreSaysWhyMessagesAreStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var l logged
		d := newDedup(t, memstore.New(nil), &dedup.Options{Logger: l.logger(slog.LevelInfo), ClockSkew: 5 * time.Second})
		for i := range 50 {
			d.Do(t.Context(), message(fmt.Sprint(i), "v"), (&handler{script: func(_ int, _ context.Context, m *dedup.Message) ([]byte, error) {
				if stale := m.Published.Before(begin.Add(5 * time.Second)); m.Claim.Stale != stale {
					t.Errorf("published %v after the store was made: got stale %v, want %v", m.Published.Sub(begin), m.Claim.Stale, stale)
				}
				return nil, nil
			}}).handle)
			time.Sleep(200 * time.Millisecond)
		}
		line := l.count(t, 1, "are flagged Stale", "level=WARN")
		for _, part := range []string{"until=" + begin.Add(5*time.Second).Format("2006-01-02T15:04:05.000Z07:00"), "since=", "VouchFrom"} {
			if !strings.Contains(line, part) {
				t.Errorf("got %s, want %q in it", line, part)
			}
		}
	})
}

// A duplicate is visible at level Debug: which key, where it was first, and why it came.
func TestDuplicatesHaveADebugLine(t *testing.T) {
	var l logged
	d := newDedup(t, newStore(), &dedup.Options{Logger: l.logger(slog.LevelDebug)})
	first := message("k", "v")
	d.Do(t.Context(), first, ok)
	again, copied, elsewhere := *first, *message("k", "v"), *message("k", "v")
	elsewhere.Position.Source = "invoices"
	for cause, m := range map[string]*dedup.Message{"redelivery": &again, "republish": &copied, "other_source": &elsewhere} {
		want(t, d.Do(t.Context(), m, ok), dedup.Duplicate, true)
		l.count(t, 1, "level=DEBUG", "cause="+cause, "id="+dedup.NewID("orders", "k").String(), "first="+first.Position.String(), "position="+m.Position.String())
	}
	l.count(t, 3, "duplicate")
	var quiet logged
	e := newDedup(t, newStore(), &dedup.Options{Logger: quiet.logger(slog.LevelInfo)})
	e.Do(t.Context(), message("k", "v"), ok)
	e.Do(t.Context(), message("k", "v"), ok)
	if s := quiet.String(); s != "" {
		t.Errorf("at level Info: got %s", s)
	}
}

// All that is wrong is told at once.
func TestNewNamesAllThatIsWrong(t *testing.T) {
	_, err := dedup.New(nil, "", nil, &dedup.Options{
		TTL: -1, Lease: time.Millisecond, MaxAttempts: 1, Concurrency: -1, MaxResult: math.MaxInt,
		OnUnkeyed: dedup.PolicySkip, OnConflict: dedup.PolicyProcess, OnStale: dedup.PolicyPark, OnAmbiguous: 77, OnStoreError: 9,
	})
	if err == nil {
		t.Fatal("it was accepted")
	}
	for _, part := range []string{
		"a store", "a scope", "a KeyFunc", "TTL", "Lease", "MaxAttempts", "Concurrency", "MaxResult", "OnUnkeyed", "OnConflict", "OnStale", "OnAmbiguous", "OnStoreError",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got %v, want it to name %s", err, part)
		}
	}
}

// loop is an error that unwraps to itself.
type loop struct{}

func (*loop) Error() string { return "loop" }

func (e *loop) Unwrap() error { return e }

type manyLoops struct{}

func (manyLoops) Error() string     { return "many loops" }
func (e manyLoops) Unwrap() []error { return []error{e, e} }

// An error that unwraps without end is cut off wherever one comes in.
func TestCircularErrors(t *testing.T) {
	for name, circular := range map[string]error{"one": &loop{}, "many": manyLoops{}, "inside": fmt.Errorf("read: %w", dedup.Transient(&loop{}))} {
		is := func(err error) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), "loop") || errors.Is(err, errBroken) { // Is would go round
				t.Errorf("%s: got %v", name, err)
			}
		}
		var l logged
		s := newStore()
		o := &dedup.Options{Logger: l.logger(slog.LevelDebug), DeadLetter: func(context.Context, *dedup.Message, error) error { return circular }}
		d := newDedup(t, s, o)
		fail := func(context.Context, *dedup.Message) ([]byte, error) { return nil, circular }
		is(d.Do(t.Context(), message("a", "v"), fail).Err)
		is(d.Do(t.Context(), message("b", "v"), func(context.Context, *dedup.Message) ([]byte, error) { panic(circular) }).Err)
		is(d.Do(t.Context(), message("c", "v"), fails(dedup.Permanent(errBroken), 1).handle).Err.(interface{ Unwrap() []error }).Unwrap()[1])
		ctx, cancel := context.WithCancel(t.Context())
		is(d.Do(ctx, message("d", "v"), func(context.Context, *dedup.Message) ([]byte, error) { cancel(); return nil, circular }).Err)
		s.before = func([]driver.Op) error { return circular }
		is(d.Do(t.Context(), message("e", "v"), ok).Err)
		s.before = nil
		noKey := func(*dedup.Message) (dedup.Key, error) { return "", circular }
		for _, fn := range []dedup.KeyFunc{noKey, dedup.FirstOf(noKey, dedup.HeaderKey()), dedup.AllOf(noKey, dedup.HeaderKey())} {
			keyed, err := dedup.New(s, "orders", fn, &dedup.Options{})
			if err != nil {
				t.Fatal(err)
			}
			is(keyed.Do(t.Context(), message("f", "v"), ok).Err)
		}
		if driver.IsPermanent(circular) {
			t.Errorf("%s: IsPermanent", name)
		}
	}
}
