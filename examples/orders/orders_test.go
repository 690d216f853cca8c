package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The hops are processes of the test's binary.
func TestMain(m *testing.M) {
	if isHop(os.Args[1:]) {
		ctx, cancel := interruptible()
		defer cancel()
		os.Exit(runHop(ctx, os.Args[1:], os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// The whole flow, with fewer orders.
func TestOrders(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	if code := run(ctx, []string{"--orders", "600", "--seed", "7"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("got exit %d\n%s\n%s", code, stdout.String(), stderr.String())
	}
	for _, want := range []string{"killed inventory", "killed carrier", "ok: nothing lost"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("got no %q in\n%s", want, stdout.String())
		}
	}
	// Both hops were killed between an effect and its record, so each repeats at least that effect.
	if !regexp.MustCompile(`flagged Ambiguous +[1-9][0-9]* +[1-9]`).MatchString(stdout.String()) {
		t.Errorf("got a hop without a flagged repeat:\n%s", stdout.String())
	}
}

// count must find each kind of fault.
func TestCount(t *testing.T) {
	good := []effect{{order: orderKey(0)}, {order: orderKey(1)}, {orderKey(2), true}}
	with := func(e effect) []effect { return append(good[:len(good):len(good)], e) }
	for name, c := range map[string]struct {
		effects []effect
		want    tally
	}{
		"as it should be": {good, tally{effects: 3}},
		"one lost":        {good[1:], tally{effects: 2, lost: 1}},
		"one repeated":    {with(good[0]), tally{effects: 4, repeats: 1, unflagged: 1}},
		"one flagged":     {with(effect{orderKey(0), true}), tally{effects: 4, repeats: 1}},
		"one unknown":     {with(effect{order: orderKey(3)}), tally{effects: 4, unknown: 1}},
	} {
		got := count(3, c.effects)
		if got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		bad := c.want.lost+c.want.unflagged+c.want.unknown > 0
		if r := (report{bookings: got}); r.ok() == bad {
			t.Errorf("%s: got ok %t", name, r.ok())
		}
	}
}

func TestTraffic(t *testing.T) {
	a, b := traffic(3000, 5), traffic(3000, 5)
	if len(a) != len(b) || len(a) < 3800 || len(a) > 4200 {
		t.Errorf("got %d and %d messages of 3000 orders, want a third more, and the same from the same seed", len(a), len(b))
	}
}

func TestBadInput(t *testing.T) {
	for _, args := range [][]string{{"--orders", "9"}, {"x"}, {"--y"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: got exit %d, %q", args, code, stderr.String())
		}
	}
}
