package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every pair of brokers, with fewer orders. JetStream drops a repeat by its id, so nothing is
// repeated there.
func TestPairs(t *testing.T) {
	for _, from := range []string{"kafka", "nats"} {
		for _, to := range []string{"kafka", "nats"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				r, err := demo(t.Context(), options{broker: from, to: to, messages: 4000, kills: 2, seed: 11}, newProgress(t.Output()))
				if err != nil {
					t.Fatal(err)
				}
				if r.Lost > 0 || r.unflagged > 0 || r.unknown > 0 || to == "nats" && r.RepeatedOut > 0 {
					t.Errorf("got %+v", r)
				}
				t.Logf("%d repeated, %d flagged", r.RepeatedOut, r.Ambiguous)
			})
		}
	}
}

// The command itself.
func TestDemo(t *testing.T) {
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), []string{"--messages", "3000", "--kills", "1", "--seed", "7", "--json"}, &stdout, &stderr)
	if code != 0 || stderr.Len() > 0 {
		t.Fatalf("got exit %d\n%s\n%s", code, stdout.String(), stderr.String())
	}
	lines := strings.Split(strings.TrimSpace(stdout.String()), "\n")
	var got report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &got); err != nil {
		t.Fatalf("the last line is not JSON: %v\n%s", err, stdout.String())
	}
	if got.Messages != 3000 || got.UniqueIn != got.UniqueOut || got.UniqueIn+got.DuplicatesIn != 3000 || got.Lost != 0 || got.Kills != 1 || got.Broker != "kafka" {
		t.Errorf("got %+v", got)
	}
}

// check must find each kind of fault.
func TestCheck(t *testing.T) {
	traffic := newTraffic(1000, 1)
	var good []received
	seen := map[string]bool{}
	for _, o := range traffic.orders {
		if !seen[o.key] {
			seen[o.key] = true
			good = append(good, received{key: o.key, payload: string(o.payload)})
		}
	}
	repeat, flagged := good[3], good[3]
	flagged.ambiguous = true
	garbled := append([]received(nil), good...)
	garbled[5].payload = "{}"
	for name, c := range map[string]struct {
		out                                  []received
		lost, repeated, unflagged, ambiguous int
	}{
		"as it should be":   {good, 0, 0, 0, 0},
		"one lost":          {good[1:], 1, 0, 0, 0},
		"one repeated":      {append(good[:len(good):len(good)], repeat), 0, 1, 1, 0},
		"one flagged":       {append(good[:len(good):len(good)], flagged), 0, 1, 0, 1},
		"one other payload": {garbled, 1, 1, 0, 0},
	} {
		r := check(traffic, c.out)
		if r.Lost != c.lost || r.RepeatedOut != c.repeated || r.unflagged != c.unflagged || r.Ambiguous != c.ambiguous || (r.unknown > 0) != (name == "one other payload") {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestTraffic(t *testing.T) {
	a, b := newTraffic(10_000, 5), newTraffic(10_000, 5)
	for i := range a.orders {
		if a.orders[i].key != b.orders[i].key || a.orders[i].customer != b.orders[i].customer {
			t.Fatal("the same seed made other traffic")
		}
	}
	if share := float64(10_000-a.unique) / 10_000; share < 0.28 || share > 0.32 {
		t.Errorf("got %.0f %% duplicates, want 30", 100*share)
	}
}

func TestBadInput(t *testing.T) {
	for _, args := range [][]string{{"--broker", "rabbit"}, {"--messages", "0"}, {"--kills", "-1"}, {"--kills", "9", "--messages", "3"}, {"x"}, {"--y"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.Len() == 0 {
			t.Errorf("%v: got exit %d, %q", args, code, stderr.String())
		}
	}
}

// Outside a checkout there is nothing to build the relay from.
func TestNoCheckout(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := build(t.Context(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "in a checkout of oncequeue") {
		t.Errorf("got %v, want the advice to run the demo in a checkout", err)
	}
}
